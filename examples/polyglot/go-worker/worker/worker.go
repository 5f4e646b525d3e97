// Package worker is a headrace worker in Go: it takes runs of one work pool and executes them as Go
// functions, in its own process.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "headrace.dev/polyglot/gen/headrace/v1"
)

// Options of a worker.
type Options struct {
	Pool     string
	Type     string // of the pool
	Name     string
	Limit    int                // runs at once
	Handlers map[string]Handler // by entrypoint
	Grace    time.Duration      // how long runs may go on after Ctrl-C
}

// Worker holds one stream to the server, and what was handed to it.
type Worker struct {
	options  Options
	client   pb.WorkerServiceClient
	recorder *Recorder
	id       string

	mutex     sync.Mutex
	session   string // given by the server; the same over reconnections
	held      map[string]*held
	granted   uint64 // assignments allowed since the epoch began
	current   *connection
	draining  bool
	idle      chan struct{} // closed once draining and nothing is held
	cancelled map[string]uint64
}

type held struct {
	attempt *pb.AttemptRef
	phase   pb.AttemptPhase
	stop    context.CancelCauseFunc
}

// New makes a worker. Run starts it.
func New(connection grpc.ClientConnInterface, options Options) *Worker {
	return &Worker{
		options: options, client: pb.NewWorkerServiceClient(connection), recorder: NewRecorder(connection),
		id: NewID(), held: map[string]*held{}, idle: make(chan struct{}), cancelled: map[string]uint64{},
	}
}

// Run works until the context ends; then it takes nothing new, lets what runs end, and says goodbye. It
// returns an error only when the server will never have it.
func (w *Worker) Run(ctx context.Context) error {
	recording, stopRecording := context.WithCancel(context.WithoutCancel(ctx))
	recorded := make(chan error, 1)
	go func() { recorded <- w.recorder.Run(recording) }()
	defer func() {
		stopRecording()
		<-recorded
	}()

	working, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	go func() {
		select {
		case <-ctx.Done():
			w.drain(w.options.Grace)
		case <-working.Done():
			return
		}
		select {
		case <-w.idle:
		case <-time.After(w.options.Grace):
			w.stopAll()
			<-w.idle
		}
		leave()
	}()
	return w.stayConnected(working)
}

// stayConnected opens a stream, and another one whenever it breaks or the server is about to stop.
func (w *Worker) stayConnected(ctx context.Context) error {
	backoff := newBackoff()
	ended := make(chan error)
	leaving := make(chan time.Duration)
	open := 0
	connect := func() {
		open++
		go func() {
			connection := newConnection(w)
			ended <- connection.run(ctx, backoff, func(after time.Duration) {
				go func() { leaving <- after }()
			})
		}()
	}
	connect()
	for {
		select {
		case after := <-leaving:
			slog.Info("the server is about to stop", "reconnect_after", after)
			sleep(ctx, after)
			connect()
		case err := <-ended:
			open--
			if open > 0 {
				continue // replaced, or its replacement is on its way
			}
			if ctx.Err() != nil {
				return nil
			}
			if isFinal(err) {
				return err
			}
			slog.Info("connecting again", "because", err)
			backoff.wait(ctx)
			connect()
		}
	}
}

// hello introduces the worker, with everything it holds. Credit starts anew with each connection.
func (w *Worker) hello() *pb.WorkerHello {
	host, _ := os.Hostname()
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.granted = uint64(max(0, w.options.Limit-len(w.held)))
	if w.draining {
		w.granted = 0
	}
	return &pb.WorkerHello{
		ProtocolMin: 1, ProtocolMax: 1, WorkerId: w.id, Name: w.options.Name, SessionId: w.session,
		WorkPool: w.options.Pool, Type: w.options.Type, Held: w.holding(),
		Capabilities: []pb.WorkerCapability{pb.WorkerCapability_WORKER_CAPABILITY_GRACEFUL_CANCEL},
		Slots:        []*pb.SlotCapacity{{Kind: "run", Total: uint32(w.options.Limit)}},
		Credit:       &pb.WorkerCredit{GrantedTotal: w.granted},
		Sdk:          &pb.SdkInfo{Name: "headrace-go-example", Version: "1", Language: "go", Host: host, Pid: int64(os.Getpid())},
	}
}

func (w *Worker) holding() []*pb.HeldAttempt {
	var all []*pb.HeldAttempt
	for _, one := range w.held {
		all = append(all, &pb.HeldAttempt{Attempt: one.attempt, Phase: one.phase})
	}
	return all
}

// welcomed makes a connection the one that messages go out on.
func (w *Worker) welcomed(connection *connection, welcome *pb.ServerWelcome) {
	w.mutex.Lock()
	w.session = welcome.SessionId
	if w.current != nil {
		close(w.current.replaced)
	}
	w.current = connection
	w.mutex.Unlock()
	w.lose(welcome.Verdicts)
	slog.Info("connected", "session", welcome.SessionId, "epoch", welcome.SessionEpoch)
}

// take begins the run of an assignment, or says why not.
func (w *Worker) take(connection *connection, assignment *pb.Assignment) {
	reply := &pb.AssignmentReply{AssignmentId: assignment.AssignmentId}
	handler, known := w.options.Handlers[assignment.Entrypoint]
	w.mutex.Lock()
	switch {
	case !known:
		reply.Reply = &pb.AssignmentReply_Refuse_{Refuse: &pb.AssignmentReply_Refuse{
			Reason: fmt.Sprintf("There is no %q in this worker.", assignment.Entrypoint), NotThisWorker: true,
		}}
	case w.draining || len(w.held) >= w.options.Limit:
		reply.Reply = &pb.AssignmentReply_Refuse_{Refuse: &pb.AssignmentReply_Refuse{
			Reason: "The worker is full.", RetryAfter: durationpb.New(time.Second),
		}}
	default:
		reply.Reply = &pb.AssignmentReply_Accept_{Accept: &pb.AssignmentReply_Accept{}}
		ctx, stop := context.WithCancelCause(context.Background())
		w.held[assignment.Attempt.RunId] = &held{assignment.Attempt, pb.AttemptPhase_ATTEMPT_PHASE_ACCEPTED, stop}
		defer func() { go w.execute(ctx, assignment, handler) }()
	}
	w.mutex.Unlock()
	connection.send(&pb.ConnectRequest{Message: &pb.ConnectRequest_Reply{Reply: reply}})
	if reply.GetRefuse() != nil {
		w.grant()
	}
}

func (w *Worker) execute(ctx context.Context, assignment *pb.Assignment, handler Handler) {
	attempt := assignment.Attempt
	w.recorder.Begin(attempt, func(reason string) { w.stop(attempt, errLost) })
	early := assignment.StartTime.AsTime().Sub(assignment.ServerTime.AsTime())
	if early > 0 {
		sleep(ctx, early)
	}
	w.mutex.Lock()
	w.held[attempt.RunId].phase = pb.AttemptPhase_ATTEMPT_PHASE_EXECUTING
	w.mutex.Unlock()
	run := &Run{Assignment: assignment, recorder: w.recorder}
	slog.Info("began", "run", assignment.Run.Name)
	if err := run.execute(ctx, handler, func() error { return context.Cause(ctx) }); err != nil {
		slog.Warn("stopped", "run", assignment.Run.Name, "because", err)
	}
	w.recorder.End(attempt)
	w.mutex.Lock()
	delete(w.held, attempt.RunId)
	delete(w.cancelled, attempt.RunId)
	w.mutex.Unlock()
	w.grant()
	w.leaveWhenIdle()
	slog.Info("ended", "run", assignment.Run.Name)
}

// grant lets the server send one more assignment.
func (w *Worker) grant() {
	w.mutex.Lock()
	if w.draining || w.current == nil {
		w.mutex.Unlock()
		return
	}
	w.granted++
	credit := &pb.WorkerCredit{GrantedTotal: w.granted}
	current := w.current
	w.mutex.Unlock()
	current.send(&pb.ConnectRequest{Message: &pb.ConnectRequest_Credit{Credit: credit}})
}

// cancel stops a run, once, and says so each time it is told.
func (w *Worker) cancel(connection *connection, message *pb.CancelAttempt) {
	w.mutex.Lock()
	seen := w.cancelled[message.Attempt.RunId]
	w.cancelled[message.Attempt.RunId] = message.CancelSeq
	w.mutex.Unlock()
	if message.CancelSeq > seen {
		w.stop(message.Attempt, errCancelled)
	}
	connection.send(&pb.ConnectRequest{Message: &pb.ConnectRequest_CancelAck{
		CancelAck: &pb.CancelAck{RunId: message.Attempt.RunId, CancelSeq: message.CancelSeq},
	}})
}

func (w *Worker) lose(verdicts []*pb.AttemptVerdict) {
	for _, verdict := range verdicts {
		if verdict.Lost {
			w.stop(verdict.Attempt, errLost)
		}
	}
}

func (w *Worker) stop(attempt *pb.AttemptRef, because error) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if one, known := w.held[attempt.RunId]; known && one.attempt.Fence == attempt.Fence {
		one.phase = pb.AttemptPhase_ATTEMPT_PHASE_ENDING
		one.stop(because)
	}
}

func (w *Worker) stopAll() {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	for _, one := range w.held {
		one.stop(errors.New("the worker stops"))
	}
}

// drain takes nothing new from now on.
func (w *Worker) drain(deadline time.Duration) {
	w.mutex.Lock()
	if w.draining {
		w.mutex.Unlock()
		return
	}
	w.draining = true
	current := w.current
	w.mutex.Unlock()
	slog.Info("draining")
	if current != nil {
		current.send(&pb.ConnectRequest{Message: &pb.ConnectRequest_Drain{
			Drain: &pb.WorkerDrain{Deadline: durationpb.New(deadline)},
		}})
	}
	w.leaveWhenIdle()
}

func (w *Worker) leaveWhenIdle() {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if w.draining && len(w.held) == 0 {
		select {
		case <-w.idle:
		default:
			close(w.idle)
		}
	}
}
