package main

import (
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/zpipes/zpipes"
)

// maxMeasured is how many pipes have series of their own, those that wait first: names come from
// strangers, and each would cost the one who stores the metrics.
const maxMeasured = 100

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("zpipes_"+name, help, labels, nil)
}

var (
	descInfo = describe("broker_info", "The broker; always 1.", "broker", "version", "zeromq", "go")
	descUp   = describe("broker_up", "Whether the broker answers at its endpoints.")
	descAge  = describe("broker_uptime_seconds", "How long the broker has been there.")

	descPipes      = describe("pipes", "Pipes and queues that exist.")
	descClients    = describe("connections", "Connections of clients.")
	descNear       = describe("connections_near", "Those of them that came through near doors, without ZeroMQ.")
	descUnlisted   = describe("pipes_without_series", "Pipes beyond those that have zpipes_pipe_ series.")
	descStuck      = describe("pipes_stuck", "Pipes in which data has not got on for 3 seconds or longer, though somebody waits.")
	descLongest    = describe("stuck_seconds_max", "For how long the pipe has been stuck that has been so the longest.")
	descWriters    = describe("pipes_waiting_to_write", "Pipes where somebody has been waiting to write, without having got on.")
	descReaders    = describe("pipes_waiting_to_read", "Pipes where somebody has been waiting to read, without having got on.")
	descQueued     = describe("queued_bytes", "Bytes written and not read yet, in all pipes.")
	descDead       = describe("dead_jobs", "Chunks that nobody gets any more, in all queues.")
	descDisk       = describe("disk_bytes", "What durable queues take on the disk.")
	descSyncs      = describe("syncs_total", "How often durable queues were synced to the disk.")
	descSyncing    = describe("sync_seconds_total", "How long these syncs took, and for how long one has been under way.")
	descUnusable   = describe("unusable_queues", "Durable queues that can't be read from the disk, or are to be repaired.")
	descChunks     = describe("queued_chunks", "Chunks sent and not received yet, in all queues.")
	descOpened     = describe("ends_opened_total", "Ends of pipes opened.")
	descRefused    = describe("opens_refused_total", "Opens refused.")
	descDenied     = describe("clients_denied_total", "Clients turned away, and what they were not allowed to do.")
	descExpired    = describe("clients_expired_total", "Connections dropped, as silent or gone, with ends open.")
	descViolations = describe("protocol_violations_total", "Messages that broke the protocol.")
	descIn         = describe("written_bytes_total", "Bytes written into pipes.")
	descOut        = describe("read_bytes_total", "Bytes read from pipes.")

	descMember = describe("cluster_member_linked", "Whether a broker of the cluster is linked with this one.", "member", "id")
	descTrip   = describe("cluster_member_round_trip_seconds", "How long a message takes there and back.", "member", "id")

	descPipeQueued  = describe("pipe_queued_bytes", "Bytes written and not read yet.", "pipe", "mode")
	descPipeChunks  = describe("pipe_queued_chunks", "Chunks sent and not received yet.", "pipe")
	descPipeUsers   = describe("pipe_users", "How many have the queue open.", "pipe")
	descPipeJobs    = describe("pipe_jobs", "Chunks of the queue that are ready, with a worker (taken), not due (delayed), or dead.", "pipe", "state")
	descPipeOldest  = describe("pipe_oldest_seconds", "Since when the oldest chunk waits that is ready.", "pipe")
	descPipeHanded  = describe("pipe_deliveries_total", "How often a chunk was handed out.", "pipe")
	descPipeDisk    = describe("pipe_disk_bytes", "What the queue takes on the disk.", "pipe")
	descPipeSyncs   = describe("pipe_syncs_total", "How often the queue was synced to the disk.", "pipe")
	descPipeSyncing = describe("pipe_sync_seconds_total", "How long these syncs took, and for how long one has been under way.", "pipe")
	descPipeReaders = describe("pipe_readers", "Readers of a broadcast.", "pipe")
	descPipeLag     = describe("pipe_lag_bytes", "How far the slowest reader of a broadcast is behind.", "pipe")
	descPipeIn      = describe("pipe_written_bytes_total", "Bytes ever written.", "pipe", "mode")
	descPipeOut     = describe("pipe_read_bytes_total", "Bytes ever read.", "pipe", "mode")
	descPipeWait    = describe("pipe_wait_seconds",
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
	if s.alive && s.ailment == nil {
		up = 1
	}
	tracks := sortedTracks(s.tracks, s.at)
	sum := sumUp(tracks, s.at)
	tracks = tracks[:min(len(tracks), maxMeasured)]
	put(descInfo, gauge, 1, s.about.Name, s.about.Version, s.about.ZeroMQ, s.about.Go)
	put(descUp, gauge, up)
	put(descAge, gauge, s.at.Sub(s.began).Seconds())
	put(descPipes, gauge, float64(s.stats.Pipes))
	put(descClients, gauge, float64(s.stats.Clients))
	put(descNear, gauge, float64(s.stats.Near))
	put(descUnlisted, gauge, float64(len(s.tracks)-len(tracks)))
	put(descStuck, gauge, float64(sum.stuck))
	put(descLongest, gauge, sum.longest.Seconds())
	put(descWriters, gauge, float64(sum.writers))
	put(descReaders, gauge, float64(sum.readers))
	put(descQueued, gauge, float64(sum.bytes))
	put(descChunks, gauge, float64(sum.chunks))
	put(descDead, gauge, float64(sum.dead))
	put(descDisk, gauge, float64(sum.disk))
	put(descSyncs, counter, float64(s.syncs))
	put(descSyncing, counter, s.syncing.Seconds())
	put(descUnusable, gauge, float64(sum.unusable))
	put(descOpened, counter, float64(s.stats.Opened))
	put(descRefused, counter, float64(s.stats.Refused))
	put(descDenied, counter, float64(s.stats.Denied))
	put(descExpired, counter, float64(s.stats.Expired))
	put(descViolations, counter, float64(s.stats.Violations))
	put(descIn, counter, float64(s.stats.BytesIn))
	put(descOut, counter, float64(s.stats.BytesOut))
	for _, m := range s.members {
		switch m.State {
		case zpipes.MemberLinked:
			put(descMember, gauge, 1, showName(m.Name), m.ID)
			put(descTrip, gauge, m.RTT.Seconds(), showName(m.Name), m.ID)
		case zpipes.MemberMissing:
			put(descMember, gauge, 0, showName(m.Name), m.ID)
		}
	}
	for _, t := range tracks {
		name, mode := showName(t.info.Name), t.info.Mode.String() // a label is UTF-8
		put(descPipeQueued, gauge, float64(t.info.Queued), name, mode)
		put(descPipeIn, counter, float64(t.info.BytesIn), name, mode)
		put(descPipeOut, counter, float64(t.info.BytesOut), name, mode)
		put(descPipeWait, gauge, t.writer.waits(s.at).Seconds(), name, mode, "write")
		put(descPipeWait, gauge, t.reader.waits(s.at).Seconds(), name, mode, "read")
		if t.info.Mode == zpipes.ModeQueue {
			put(descPipeChunks, gauge, float64(t.info.Chunks), name)
			put(descPipeUsers, gauge, float64(t.info.Users), name)
			for _, state := range statesOf(t.info) {
				put(descPipeJobs, gauge, float64(state.n), name, string(state.state))
			}
			put(descPipeOldest, gauge, t.info.Oldest.Seconds(), name)
			put(descPipeHanded, counter, float64(t.info.Handed), name)
		}
		if t.info.Durable {
			put(descPipeDisk, gauge, float64(t.info.Disk), name)
			put(descPipeSyncs, counter, float64(t.info.Syncs), name)
			put(descPipeSyncing, counter, t.info.Syncing.Seconds(), name)
		}
		if t.info.Mode == zpipes.ModeBroadcast {
			put(descPipeReaders, gauge, float64(t.info.Readers), name)
			put(descPipeLag, gauge, float64(t.info.Lag), name)
		}
	}
	return all
}
