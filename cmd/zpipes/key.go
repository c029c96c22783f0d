package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/urfave/cli/v3"
	"github.com/zpipes/zpipes"
)

func keyCommand() *cli.Command {
	var public string
	return &cli.Command{
		Name:  "key",
		Usage: "make a key for encrypted tcp, or show the public ones",
		Description: `Prints a new secret. Who has it can connect to all brokers that have it, and run one:

  zpipes key >zpipes.key                                    # on one host; copy it to the others
  zpipes broker --key zpipes.key --listen 'tcp://*:7900'
  zpipes --key zpipes.key --broker tcp://HOST:7900 ls

A client that should not have the broker's secret makes one of its own. Each side then needs a
public key of the other, which --public FILE shows for the secrets in FILE: the one behind "broker"
is for --broker-key of the client, the one behind "client" for --allow-key of the broker.

Where standard output is a file, others than you can't read it then: a key file that they can is
refused. To replace a secret without a stop, put the new one in the first line of the brokers' key
file, above the old one, send them HUP, give the clients the new one, and then delete the old one.`,
		Flags: []cli.Flag{&cli.StringFlag{Name: "public", Destination: &public, Usage: "show the public keys of the secrets in `FILE`"}},
		Action: func(_ context.Context, cmd *cli.Command) error {
			if err := noArguments(cmd); err != nil {
				return err
			}
			if cmd.IsSet("public") {
				return showKeys(public)
			}
			if info, err := os.Stdout.Stat(); err == nil && info.Mode().IsRegular() {
				if err := os.Stdout.Chmod(0o600); err != nil {
					return err
				}
			}
			_, err := output{}.Write([]byte(zpipes.NewKey().Secret()))
			return err
		},
	}
}

// showKeys prints the public keys, newest first.
func showKeys(file string) error {
	key, err := readKey(file)
	if err != nil {
		return err
	}
	var text strings.Builder
	clients := key.ClientKeys()
	for i, broker := range key.BrokerKeys() {
		fmt.Fprintf(&text, "broker %s\nclient %s\n", broker, clients[i])
	}
	_, err = output{}.Write([]byte(text.String()))
	return err
}

// readKey reads a key file; none is none.
func readKey(file string) (zpipes.Key, error) {
	if file == "" {
		return zpipes.Key{}, nil
	}
	key, err := zpipes.ReadKey(file)
	if err != nil {
		return key, hintError{err, "The key file is one that zpipes key has made, for its owner alone."}
	}
	return key, nil
}

var publicKey = regexp.MustCompile(`zpipes-public-[\w-]+`)

// keyAdvice is what to do about a key that does not fit; nothing if it is not about keys.
func keyAdvice(err error) string {
	text := err.Error()
	switch {
	case strings.Contains(text, "does not know this client's key"):
		return "Who runs it can let you in: zpipes broker --allow-key " + publicKey.FindString(text)
	case strings.Contains(text, "wants a key"):
		return "Give --key FILE with its secret, or with one of your own (zpipes key) and --broker-key."
	case strings.Contains(text, "does not encrypt"):
		return "Start it with --key FILE as well, or use none."
	case strings.Contains(text, "is not the one with the key"):
		return "Ask for its present one, which zpipes key --public FILE shows there, for --broker-key."
	case strings.Contains(text, "has another secret"):
		return "Compare zpipes key --public FILE on both hosts. With a key of your own, you need --broker-key, too."
	}
	return ""
}
