package zpipes

import (
	"errors"
	"fmt"
)

func privateEndpoint(string) (string, error) {
	return "", fmt.Errorf("%w: there are no private sockets on Windows", errors.ErrUnsupported)
}

func makePrivate(name string) (string, error) { return privateEndpoint(name) }
