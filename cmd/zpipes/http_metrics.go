package main

import (
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/zpipes/zpipes"
)

// maxMeasured is how many pipes have series of their own: names come from
// strangers, and each would cost the one who stores the metrics.
const maxMeasured = 100

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("zpipes_"+name, help, labels, nil)
}

var (
	descInfo = describe("broker_info", "The broker; always 1.", "broker", "version", "zeromq", "go")
	descUp   = describe("broker_up", "Whether the broker serves.")
	descAge  = describe("broker_uptime_seconds", "How long the broker has been there.")

	descPipes      = describe("pipes", "Pipes and queues that exist.")
	descClients    = describe("connections", "Connections over ZeroMQ.")
	descUnlisted   = describe("pipes_without_series", "Pipes beyond those that have zpipes_pipe_ series.")
	descOpened     = describe("ends_opened_total", "Ends of pipes opened.")
	descRefused    = describe("opens_refused_total", "Opens refused.")
	descExpired    = describe("clients_expired_total", "Connections dropped, as silent or gone, with ends open.")
	descViolations = describe("protocol_violations_total", "Messages that broke the protocol.")
	descIn         = describe("written_bytes_total", "Bytes written into pipes.")
	descOut        = describe("read_bytes_total", "Bytes read from pipes.")

	descPipeQueued = describe("pipe_queued_bytes", "Bytes written and not read yet.", "pipe", "mode")
	descPipeChunks = describe("pipe_queued_chunks", "Chunks sent and not received yet.", "pipe")
	descPipeUsers  = describe("pipe_users", "How many have the queue open.", "pipe")
	descPipeIn     = describe("pipe_written_bytes_total", "Bytes ever written.", "pipe", "mode")
	descPipeOut    = describe("pipe_read_bytes_total", "Bytes ever read.", "pipe", "mode")
	descPipeWait   = describe("pipe_wait_seconds",
		"For how long somebody has been waiting to write or read, without having got on.", "pipe", "mode", "side")
)

// metrics serves all numbers to Prometheus.
func (s *site) metrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(s.sampler, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 4,
		Registry:            registry,
	})
}

// Describe tells nothing: which pipes there are changes.
func (s *sampler) Describe(chan<- *prometheus.Desc) {}

// Collect sends the latest sample.
func (s *sampler) Collect(to chan<- prometheus.Metric) {
	for _, m := range s.measure() {
		to <- m
	}
}

func (s *sampler) measure() (all []prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	put := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		all = append(all, prometheus.MustNewConstMetric(d, kind, v, labels...))
	}
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	up := 0.0
	if s.alive {
		up = 1
	}
	tracks := sortedTracks(s.tracks)
	tracks = tracks[:min(len(tracks), maxMeasured)]
	put(descInfo, gauge, 1, s.about.Name, s.about.Version, s.about.ZeroMQ, s.about.Go)
	put(descUp, gauge, up)
	put(descAge, gauge, s.at.Sub(s.began).Seconds())
	put(descPipes, gauge, float64(s.stats.Pipes))
	put(descClients, gauge, float64(s.stats.Clients))
	put(descUnlisted, gauge, float64(len(s.tracks)-len(tracks)))
	put(descOpened, counter, float64(s.stats.Opened))
	put(descRefused, counter, float64(s.stats.Refused))
	put(descExpired, counter, float64(s.stats.Expired))
	put(descViolations, counter, float64(s.stats.Violations))
	put(descIn, counter, float64(s.stats.BytesIn))
	put(descOut, counter, float64(s.stats.BytesOut))
	for _, t := range tracks {
		name, mode := showName(t.info.Name), t.info.Mode.String() // a label is UTF-8
		put(descPipeQueued, gauge, float64(t.info.Queued), name, mode)
		put(descPipeIn, counter, float64(t.info.BytesIn), name, mode)
		put(descPipeOut, counter, float64(t.info.BytesOut), name, mode)
		put(descPipeWait, gauge, t.writer.lasted(s.at).Seconds(), name, mode, "write")
		put(descPipeWait, gauge, t.reader.lasted(s.at).Seconds(), name, mode, "read")
		if t.info.Mode == zpipes.ModeQueue {
			put(descPipeChunks, gauge, float64(t.info.Chunks), name)
			put(descPipeUsers, gauge, float64(t.info.Users), name)
		}
	}
	return all
}
