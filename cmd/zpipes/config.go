package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/zpipes/zpipes"
	"github.com/zpipes/zpipes/cluster"
)

// settings are those of a broker, as the config file has them. Flags come on top.
type settings struct {
	Name          string     `toml:"name"`
	Listen        []string   `toml:"listen"`
	Private       bool       `toml:"private"`
	AllowUsers    users      `toml:"allow_users"`
	KeyFile       string     `toml:"key_file"`
	AllowKeys     []string   `toml:"allow_keys"`
	ClusterKey    string     `toml:"cluster_key_file"`
	ClusterListen string     `toml:"cluster_listen"`
	Advertise     string     `toml:"cluster_advertise"`
	Join          []string   `toml:"join"`
	HTTP          string     `toml:"http"`
	HTTPTokenFile string     `toml:"http_token_file"`
	HTTPPprof     bool       `toml:"http_pprof"`
	HTTPCert      string     `toml:"http_cert"`
	HTTPKey       string     `toml:"http_key"`
	HTTPHosts     []string   `toml:"http_hosts"`
	HTTPProxied   bool       `toml:"http_behind_proxy"`
	Door          bool       `toml:"door"`
	ClientTimeout duration   `toml:"client_timeout"`
	MaxPending    size       `toml:"max_pending"`
	MaxMessage    size       `toml:"max_message"`
	MaxPipes      int        `toml:"max_pipes"`
	Dir           string     `toml:"dir"`
	MaxDisk       size       `toml:"max_disk"`
	PerClient     limits     `toml:"per_client"`
	PerUser       limits     `toml:"per_user"`
	ForgetQueues  duration   `toml:"forget_queues"`
	LogLevel      slog.Level `toml:"log_level"`
	LogJSON       bool       `toml:"log_json"`
}

// limits are those of one client, or of all clients of one user.
type limits struct {
	Pipes    int  `toml:"pipes"`
	Pending  size `toml:"pending"`
	Requests int  `toml:"requests"`
	Disk     size `toml:"disk"`
}

func (l limits) broker() zpipes.Limits {
	return zpipes.Limits{Pipes: l.Pipes, Pending: int64(l.Pending), Requests: l.Requests, Disk: int64(l.Disk)}
}

// load reads a config file. A mistake in it is an error that says where.
func (s *settings) load(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return hintError{err, "Name the config file with --config FILE, or leave it out."}
	}
	meta, err := toml.Decode(string(text), s)
	if err != nil {
		return mistake(file, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return wrong(file, lineOf(string(text), unknown[0]), fmt.Sprintf("there is no setting %q", unknown[0]))
	}
	if meta.IsDefined("listen") && len(s.Listen) == 0 {
		return wrong(file, lineOf(string(text), toml.Key{"listen"}), "listen is empty, so nobody could reach the broker")
	}
	for key, n := range map[string]int{
		"max_pipes":  s.MaxPipes,
		"per_client": min(s.PerClient.Pipes, s.PerClient.Requests),
		"per_user":   min(s.PerUser.Pipes, s.PerUser.Requests),
	} {
		if n < 0 {
			return wrong(file, lineOf(string(text), toml.Key{key}), key+" is negative")
		}
	}
	return nil
}

var keys = []string{"name", "listen", "private", "allow_users", "key_file", "allow_keys", "cluster_key_file", "cluster_listen", "cluster_advertise", "join", "http", "http_token_file", "http_pprof",
	"http_cert", "http_key", "http_hosts", "http_behind_proxy", "door", "client_timeout", "max_pending", "max_message",
	"max_pipes", "dir", "max_disk", "per_client", "per_user", "forget_queues", "log_level", "log_json"}

func wrong(file string, line int, what string) error {
	return hintError{fmt.Errorf("%s:%d: %s", file, line, what), "The settings are " + strings.Join(keys, ", ") + "."}
}

var (
	lineIn   = regexp.MustCompile(`^toml: line (\d+)(?: \(last key "(.*?)"\))?: (.*)$`)
	typesIn  = regexp.MustCompile(`incompatible types: TOML value has type (\S+); destination has type (.*)`)
	typeName = strings.NewReplacer("int64", "number", "integer", "number", "float64", "number", "float", "number",
		"slice", "list", "array", "list", "[]any", "list", "boolean", "bool", "bool", "true or false", "map[string]any", "table")
)

// mistake puts an error of the TOML package in our words.
func mistake(file string, err error) error {
	var parse toml.ParseError
	line, key, what := 0, "", err.Error()
	if errors.As(err, &parse) {
		line, key, what = parse.Position.Line, parse.LastKey, parse.Message
	} else if m := lineIn.FindStringSubmatch(what); m != nil {
		line, _ = strconv.Atoi(m[1])
		key, what = m[2], m[3]
	}
	if m := typesIn.FindStringSubmatch(what); m != nil {
		what = fmt.Sprintf("a %s is not what belongs here; %s wants a %s", typeName.Replace(m[1]), key, typeName.Replace(m[2]))
	} else if slices.Contains(keys, key) {
		what = key + ": " + what
	}
	return wrong(file, line, what)
}

// lineOf finds the line of a key that the TOML package took and nothing wanted. It
// tells no positions of these.
func lineOf(text string, key toml.Key) int {
	name := regexp.QuoteMeta(key[len(key)-1])
	first := regexp.QuoteMeta(key[0])
	for _, pattern := range []string{
		`^\s*(?:\S+\.)?["']?` + name + `["']?\s*=`,
		`^\s*\[+\s*["']?` + first + `\b`,
		`\b` + name + `\b`,
	} {
		find := regexp.MustCompile(pattern)
		for i, line := range strings.Split(text, "\n") {
			if find.MatchString(line) {
				return i + 1
			}
		}
	}
	return 1
}

func (s *settings) broker(log *slog.Logger) (*zpipes.Broker, error) {
	key, err := readKey(s.KeyFile)
	if err != nil {
		return nil, err
	}
	return zpipes.BrokerConfig{
		Endpoints:     s.Listen,
		Private:       s.Private,
		AllowUIDs:     s.AllowUsers.ints(),
		Key:           key,
		AllowKeys:     s.AllowKeys,
		ClientTimeout: time.Duration(s.ClientTimeout),
		MaxPending:    int(s.MaxPending),
		MaxMessage:    int(s.MaxMessage),
		MaxPipes:      s.MaxPipes,
		Dir:           s.Dir,
		MaxDisk:       int64(s.MaxDisk),
		PerClient:     s.PerClient.broker(),
		PerUser:       s.PerUser.broker(),
		ForgetQueues:  time.Duration(s.ForgetQueues),
		Logger:        log,
		Cluster:       s.cluster(),
	}.NewBroker(s.Name)
}

// cluster is nil where there is none.
func (s *settings) cluster() zpipes.Cluster {
	if s.ClusterKey == "" {
		return nil
	}
	return cluster.Config{KeyFile: s.ClusterKey, Listen: s.ClusterListen, Advertise: s.Advertise, Join: s.Join}
}

func (s *settings) page() pageConfig {
	return pageConfig{address: s.HTTP, tokenFile: s.HTTPTokenFile, pprof: s.HTTPPprof, users: s.AllowUsers.ints(),
		door: s.Door, cert: s.HTTPCert, key: s.HTTPKey, proxied: s.HTTPProxied, hosts: s.HTTPHosts}
}

// logger returns the log, and what waits a little until it is written.
func (s *settings) logger() (*slog.Logger, func()) {
	to := func(w io.Writer) *slog.Logger {
		options := &slog.HandlerOptions{Level: s.LogLevel}
		if s.LogJSON {
			return slog.New(slog.NewJSONHandler(harmlessJSON{w}, options))
		}
		return slog.New(slog.NewTextHandler(w, options))
	}
	out := newSpool(os.Stderr, func(n int) { to(os.Stderr).Warn("lines left out, since the log was not read", "count", n) })
	return to(out), out.close
}
