package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v3"
	"github.com/zpipes/zpipes"
)

// grace is how long readers may take to read what the broker holds when it is to end.
const grace = 3 * time.Second

func brokerCommand() *cli.Command {
	var flags settings
	var level slog.LevelVar
	var maxPipes count
	return &cli.Command{
		Name:      "broker",
		Usage:     "run a broker until TERM or INT",
		ArgsUsage: "[NAME]",
		Description: `Runs the broker NAME; without one, that of the config file, of ZPIPES_BROKER, or ` + defaultBroker + `. It
holds its pipes in memory; with --dir, durable queues ("zpipes send --durable") in a directory, too,
where they outlive it.

TERM, INT or HUP ends it: it takes no more data, gives readers up to ` + grace.String() + ` for what was
acknowledged, and exits with status 0 if they had enough time. A second signal ends it at once.

--config names a TOML file with the same settings; flags come before it:

  name = "local"                     max_pending = "1MiB"
  listen = ["ipc://@/zpipes/local"]  max_message = "16MiB"
  private = false                    max_pipes = 65536
  allow_users = ["backup", 1000]     forget_queues = "24h"
  key_file = "zpipes.key"            allow_keys = ["zpipes-public-..."]
  http = "127.0.0.1:8080"            log_level = "info"
  http_token_file = "page.token"     http_pprof = false
  http_cert = "cert.pem"             http_key = "key.pem"
  http_hosts = ["files.example"]     http_behind_proxy = false
  door = false                       max_disk = "10GiB"
  dir = "/var/lib/zpipes"            cluster_key_file = "cluster.key"
  join = ["hostA", "hostB"]          cluster_listen = ":7900"
  client_timeout = "10s"             log_json = false
  per_client = { pipes = 32768, pending = "256MiB", requests = 262144 }
  per_user = { pipes = 49152, pending = "2GiB", requests = 1048576 }

With --key (key_file, ZPIPES_KEY) it serves tcp endpoints at any address, encrypted, to who has the
same secret, and to those of --allow-key. HUP then does not end it, unless standard input is a
terminal, but has it read the key file, and allow_keys of the config file, again.

With --cluster (cluster_key_file) it acts as one with the brokers of other hosts that have the same
secret: what is opened at one of them finds its other end wherever it is opened. The line can be
the same on each host; "zpipes cluster status" shows who is there:

  zpipes key >cluster.key                                   # on one host; copy it to the others
  zpipes broker --cluster cluster.key --join hostA,hostB

It tells systemd when it is ready (Type=notify).`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Usage: "read settings from `FILE`"},
			&cli.StringSliceFlag{Name: "listen", Destination: &flags.Listen,
				Usage: "serve at `ENDPOINT` instead of the one that belongs to NAME: ipc:///PATH, ipc://@NAME, tcp://127.0.0.1:PORT; with --key tcp://*:PORT"},
			&cli.BoolFlag{Name: "private", Destination: &flags.Private,
				Usage: "serve where no other user can get: a socket in a directory of yours, which your own clients find by NAME"},
			&cli.GenericFlag{Name: "allow-user", Value: &flags.AllowUsers, Usage: "let `USER` (name or number) connect over ipc, besides root and who runs this; may be repeated"},
			&cli.StringSliceFlag{Name: "allow-key", Destination: &flags.AllowKeys, Usage: "let a client in by tcp whose public `KEY` this is; may be repeated"},
			&cli.StringFlag{Name: "cluster", Destination: &flags.ClusterKey, Usage: "act as one with the brokers of other hosts that have the secret in `FILE`, which zpipes key makes"},
			&cli.StringSliceFlag{Name: "join", Destination: &flags.Join, Usage: "find them by the one at `HOST`[:PORT]; several with commas, or repeated"},
			&cli.StringFlag{Name: "listen-cluster", Destination: &flags.ClusterListen, Usage: "let them connect at `ADDRESS` ([HOST]:PORT, by tcp; :7900)"},
			&cli.StringFlag{Name: "advertise", Destination: &flags.Advertise, Usage: "they reach that at `HOST`[:PORT], as behind NAT"},
			&cli.StringFlag{Name: "http", Destination: &flags.HTTP, Usage: "serve a page for browsers, and metrics, at `ADDRESS`: [HOST:]PORT (else of this machine alone; 0.0.0.0 is all hosts), or a path for a socket"},
			&cli.StringFlag{Name: "http-token-file", Destination: &flags.HTTPTokenFile, Usage: "who wants to see the page needs the token in `FILE` (else over TCP one that is made and printed)"},
			&cli.BoolFlag{Name: "door", Destination: &flags.Door, Usage: "serve pipes and queues there too, for programs that know only HTTP: /pipes/NAME, /queues/NAME"},
			&cli.StringFlag{Name: "http-cert", Destination: &flags.HTTPCert, Usage: "serve with TLS, with the certificate in `FILE`"},
			&cli.StringFlag{Name: "http-key", Destination: &flags.HTTPKey, Usage: "and its key in `FILE`"},
			&cli.BoolFlag{Name: "http-behind-proxy", Destination: &flags.HTTPProxied, Usage: "a proxy in front of it has TLS"},
			&cli.StringSliceFlag{Name: "http-host", Destination: &flags.HTTPHosts, Usage: "it is reached by `NAME`, too, or through a proxy; may be repeated"},
			&cli.BoolFlag{Name: "http-pprof", Destination: &flags.HTTPPprof, Usage: "serve profiles of the broker's process there too"},
			&cli.GenericFlag{Name: "client-timeout", Value: &flags.ClientTimeout, Usage: "drop clients of the base protocol that are silent for `DURATION` (10s)"},
			&cli.GenericFlag{Name: "max-pending", Value: &flags.MaxPending, Usage: "a pipe holds `SIZE` bytes before writes wait (1MiB)"},
			&cli.GenericFlag{Name: "max-message", Value: &flags.MaxMessage, Usage: "the largest single message of a client is `SIZE` (16MiB)"},
			&cli.StringFlag{Name: "dir", Destination: &flags.Dir, Usage: "keep durable queues in `DIRECTORY`; no other broker can use it meanwhile"},
			&cli.GenericFlag{Name: "max-disk", Value: &flags.MaxDisk, Usage: "they take up to `SIZE` bytes on the disk (all of it)"},
			&cli.GenericFlag{Name: "max-pipes", Value: &maxPipes, Usage: "refuse to have more than `COUNT` pipes (65536)"},
			&cli.GenericFlag{Name: "forget-queues", Value: &flags.ForgetQueues, Usage: "delete queues that nobody has had open for `DURATION` (never)"},
			&cli.TextFlag{Name: "log-level", Value: &level, HideDefault: true, Usage: "log to standard error from `LEVEL` on: debug, info, warn, error (info)"},
			&cli.BoolFlag{Name: "log-json", Destination: &flags.LogJSON, Usage: "log as JSON"},
		},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			flags.LogLevel, flags.MaxPipes = level.Level(), int(maxPipes)
			s, err := merge(cmd, flags)
			if err != nil {
				return err
			}
			return serve(ctx, s, func() (settings, error) { return merge(cmd, flags) })
		},
	}
}

// merge returns what the config file says, and what flags say instead.
func merge(cmd *cli.Command, flags settings) (settings, error) {
	var s settings
	if cmd.NArg() > 1 {
		return s, usageError{fmt.Sprintf("a broker has one name, not %d", cmd.NArg())}
	}
	if file := cmd.String("config"); file != "" {
		if err := s.load(file); err != nil {
			return s, err
		}
	}
	if cmd.NArg() == 1 {
		if _, err := checkName(cmd.Args().First(), "broker"); err != nil {
			return s, err
		}
	}
	for name, set := range map[string]func(){
		"listen":         func() { s.Listen = flags.Listen },
		"private":        func() { s.Private = flags.Private },
		"allow-user":     func() { s.AllowUsers = flags.AllowUsers },
		"key":            func() { s.KeyFile = cmd.String("key") },
		"allow-key":      func() { s.AllowKeys = flags.AllowKeys },
		"cluster":        func() { s.ClusterKey = flags.ClusterKey },
		"join":           func() { s.Join = flags.Join },
		"listen-cluster": func() { s.ClusterListen = flags.ClusterListen },
		"advertise":      func() { s.Advertise = flags.Advertise },
		"http":           func() { s.HTTP = flags.HTTP },
		"client-timeout": func() { s.ClientTimeout = flags.ClientTimeout },
		"max-pending":    func() { s.MaxPending = flags.MaxPending },
		"max-message":    func() { s.MaxMessage = flags.MaxMessage },
		"max-pipes":      func() { s.MaxPipes = flags.MaxPipes },
		"dir":            func() { s.Dir = flags.Dir },
		"max-disk":       func() { s.MaxDisk = flags.MaxDisk },
		"forget-queues":  func() { s.ForgetQueues = flags.ForgetQueues },
		"log-level":      func() { s.LogLevel = flags.LogLevel },
		"log-json":       func() { s.LogJSON = flags.LogJSON },

		"http-token-file": func() { s.HTTPTokenFile = flags.HTTPTokenFile },
		"http-pprof":      func() { s.HTTPPprof = flags.HTTPPprof },

		"door":              func() { s.Door = flags.Door },
		"http-cert":         func() { s.HTTPCert = flags.HTTPCert },
		"http-key":          func() { s.HTTPKey = flags.HTTPKey },
		"http-behind-proxy": func() { s.HTTPProxied = flags.HTTPProxied },
		"http-host":         func() { s.HTTPHosts = flags.HTTPHosts },
	} {
		if cmd.IsSet(name) {
			set()
		}
	}
	if s.Door && s.HTTP == "" {
		return s, usageError{"where is the door? --door needs --http ADDRESS"}
	}
	if s.MaxDisk != 0 && s.Dir == "" {
		return s, usageError{"where are the queues? --max-disk needs --dir DIRECTORY"}
	}
	if s.ClusterKey == "" && (len(s.Join) > 0 || s.ClusterListen != "" || s.Advertise != "") {
		return s, usageError{"which cluster? --join, --listen-cluster and --advertise need --cluster FILE, with its secret"}
	}
	// ZPIPES_BROKER names it too, so that it is the one which the other commands use.
	s.Name = cmp.Or(cmd.Args().First(), s.Name, brokerName(cmd))
	if strings.Contains(s.Name, "://") {
		return s, usageError{fmt.Sprintf("%q is an endpoint; a broker has a name: zpipes broker NAME --listen %s", s.Name, s.Name)}
	}
	return s, nil
}

// serve runs a broker until ctx ends, and ends it in good order. again returns the settings
// as they are then.
func serve(ctx context.Context, s settings, again func() (settings, error)) error {
	log, written := s.logger()
	defer written()
	var at *lobby
	var err error
	if s.HTTP != "" {
		if at, err = openLobby(ctx, s.page(), log); err != nil {
			return err
		}
	}
	b, err := s.broker(log)
	if err != nil {
		if at != nil {
			at.Close()
		}
		return err
	}
	defer b.Close()
	if s.KeyFile != "" && !isTerminal(os.Stdin) {
		onHangUp(ctx, func() {
			if err := changeKeys(b, again); err != nil {
				log.Error("the keys stay as they were", "error", err)
			}
		})
	}
	page := ""
	if at != nil {
		var stop func()
		page, stop = at.serve(context.WithoutCancel(ctx), b, log)
		defer stop()
	}
	if err := greet(b, s, page); err != nil && !errors.Is(err, syscall.EPIPE) {
		log.Warn("standard output does not tell that the broker is up", "error", err)
	}
	if err := notify("READY=1\nSTATUS=serving " + strings.Join(b.Endpoints()[1:], " ")); err != nil {
		log.Warn("systemd was not told that the broker is ready", "error", err)
	}

	<-ctx.Done()
	notify("STOPPING=1")
	log.Info("broker is to end", "why", context.Cause(ctx))
	for p := range b.Pipes() {
		if p.Mode == zpipes.ModeQueue && p.Users == 0 && p.Chunks > 0 && !p.Durable && !linked(b) {
			log.Warn("what is in this queue is lost, since nobody receives it", "queue", p.Name, "chunks", p.Chunks)
		}
	}
	limited, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if b.Shutdown(limited) != nil {
		return hintError{fmt.Errorf("readers were still at it after %v; what they had not read is lost", grace),
			"A reader that does not read holds up the broker's end: zpipes ls shows such pipes while it runs."}
	}
	return nil
}

// linked says that another broker may take over what this one has in memory.
func linked(b *zpipes.Broker) bool {
	for m := range b.Members() {
		if m.State == zpipes.MemberLinked {
			return true
		}
	}
	return false
}

// changeKeys gives a broker those that the files have by now.
func changeKeys(b *zpipes.Broker, again func() (settings, error)) error {
	s, err := again()
	if err != nil {
		return err
	}
	key, err := readKey(s.KeyFile)
	if err != nil {
		return err
	}
	return b.SetKeys(key, s.AllowKeys)
}

// greet says where the broker is, and one line to try.
func greet(b *zpipes.Broker, s settings, page string) error {
	var text strings.Builder
	fmt.Fprintf(&text, "broker %s is up\n", quoted(b.Name()))
	at := b.Endpoints()[1:] // the first one is of use to this process alone
	for _, e := range at {
		fmt.Fprintf(&text, "  %s\n", visible(e))
	}
	if page != "" {
		fmt.Fprintf(&text, "  %s\n", page)
	}
	option := ""
	if s.Listen != nil {
		host, err := os.Hostname()
		if err != nil {
			host = "HOST"
		}
		option = " --broker " + visible(strings.Replace(at[0], "tcp://*:", "tcp://"+host+":", 1))
		if s.KeyFile != "" && strings.HasPrefix(at[0], "tcp:") {
			option += " --key " + visible(s.KeyFile)
		}
	} else if b.Name() != defaultBroker {
		option = " --broker " + visible(b.Name())
	}
	fmt.Fprintf(&text, "try: echo hello | zpipes%s write greetings & zpipes%s read greetings\n", option, option)
	// Without which a broker does its work as well, and also where nobody reads it.
	told := make(chan error, 1)
	go func() {
		_, err := os.Stdout.WriteString(text.String())
		told <- err
	}()
	select {
	case err := <-told:
		return err
	case <-time.After(spoolTime):
		return errors.New("nobody reads it")
	}
}
