package zpipes

import (
	"errors"
	"fmt"
)

func privateEndpoint(string) (string, error) {
	return "", fmt.Errorf("%w: there are no private sockets on Windows", errors.ErrUnsupported)
}

func makePrivate(name string) (endpoint string, undo func(), err error) {
	endpoint, err = privateEndpoint(name)
	return endpoint, func() {}, err
}
