package worker

import (
	"context"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"

	pb "headrace.dev/polyglot/gen/headrace/v1"
)

// Recorder tells the server what happens, in one numbered sequence: states and log lines. An entry is kept
// until the server has it in its database; after a broken stream the recorder goes on behind the last
// durable one. What is kept lives in memory: a worker that is killed loses what was not yet acknowledged.
type Recorder struct {
	id      string
	client  pb.RecordServiceClient
	mutex   sync.Mutex
	entries []*pb.RecordEntry // those after `durable`
	durable uint64
	changed chan struct{} // closed, and replaced, whenever there is something to send
	answers map[uint64]chan *pb.EntryResult
	waiting map[uint64]chan struct{}
	// What is being executed, and how to stop it once it is not ours any more.
	executing map[string]execution
}

type execution struct {
	attempt *pb.AttemptRef
	lost    func(reason string)
}

// NewRecorder makes the recorder of this process.
func NewRecorder(connection grpc.ClientConnInterface) *Recorder {
	return &Recorder{
		id:        NewID(),
		client:    pb.NewRecordServiceClient(connection),
		changed:   make(chan struct{}),
		answers:   map[uint64]chan *pb.EntryResult{},
		waiting:   map[uint64]chan struct{}{},
		executing: map[string]execution{},
	}
}

// Begin lists the attempt in every renewal until End; `lost` is called when it is somebody else's.
func (r *Recorder) Begin(attempt *pb.AttemptRef, lost func(reason string)) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.executing[attempt.RunId] = execution{attempt, lost}
}

// End stops listing the attempt.
func (r *Recorder) End(attempt *pb.AttemptRef) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	delete(r.executing, attempt.RunId)
}

// Post records an entry. It does not wait.
func (r *Recorder) Post(entry *pb.RecordEntry) uint64 {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.post(entry)
}

func (r *Recorder) post(entry *pb.RecordEntry) uint64 {
	r.entries = append(r.entries, entry)
	close(r.changed)
	r.changed = make(chan struct{})
	return r.durable + uint64(len(r.entries))
}

// Propose asks for a state and waits for the server's verdict.
func (r *Recorder) Propose(ctx context.Context, attempt *pb.AttemptRef, state *pb.State) (*pb.EntryResult, error) {
	answer := make(chan *pb.EntryResult, 1)
	r.mutex.Lock()
	seq := r.post(&pb.RecordEntry{Kind: &pb.RecordEntry_State{State: &pb.StateEntry{
		Attempt: attempt, State: state, WantVerdict: true,
	}}})
	r.answers[seq] = answer
	r.mutex.Unlock()
	select {
	case result := <-answer:
		return result, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Durable waits until the server has everything up to the entry in its database.
func (r *Recorder) Durable(ctx context.Context, seq uint64) error {
	r.mutex.Lock()
	if seq <= r.durable {
		r.mutex.Unlock()
		return nil
	}
	done, known := r.waiting[seq]
	if !known {
		done = make(chan struct{})
		r.waiting[seq] = done
	}
	r.mutex.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run keeps a stream open until the context ends; then it says that nothing more will come.
func (r *Recorder) Run(ctx context.Context) error {
	for backoff := newBackoff(); ; {
		err := r.stream(ctx, backoff)
		if ctx.Err() != nil {
			return nil
		}
		if isFinal(err) {
			return err
		}
		backoff.wait(ctx)
	}
}

func (r *Recorder) stream(ctx context.Context, backoff *backoff) error {
	// Not the context that is cancelled at the end: the farewell still has to be sent.
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stream, err := r.client.Record(inner)
	if err != nil {
		return err
	}
	if err := stream.Send(&pb.RecordRequest{Message: &pb.RecordRequest_Open{Open: r.open()}}); err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	opened := first.GetOpened()
	r.acknowledge(&pb.RecordAck{DurableSeq: opened.GetDurableSeq()})
	r.judge(opened.GetVerdicts())
	backoff.reset()

	failed := make(chan error, 1)
	leave := make(chan struct{}, 1)
	go r.receive(stream, failed, leave)
	return r.send(ctx, stream, opened, failed, leave)
}

func (r *Recorder) receive(stream pb.RecordService_RecordClient, failed chan<- error, leave chan<- struct{}) {
	for {
		response, err := stream.Recv()
		if err != nil {
			failed <- err
			return
		}
		switch message := response.Message.(type) {
		case *pb.RecordResponse_Ack:
			r.acknowledge(message.Ack)
		case *pb.RecordResponse_Renewed:
			r.judge(message.Renewed.Verdicts)
		case *pb.RecordResponse_GoAway:
			leave <- struct{}{}
		}
	}
}

func (r *Recorder) send(
	ctx context.Context, stream pb.RecordService_RecordClient, opened *pb.RecorderOpened,
	failed <-chan error, leave <-chan struct{},
) error {
	renewal := time.NewTicker(opened.RenewInterval.AsDuration())
	defer renewal.Stop()
	sent := opened.DurableSeq
	for {
		batch, changed := r.unsent(sent, int(opened.MaxEntries))
		if len(batch) > 0 {
			err := stream.Send(&pb.RecordRequest{Message: &pb.RecordRequest_Entries{
				Entries: &pb.RecordEntries{FirstSeq: sent + 1, Entries: batch},
			}})
			if err != nil {
				return <-failed
			}
			sent += uint64(len(batch))
			continue
		}
		select {
		case <-changed:
		case <-renewal.C:
			renew := &pb.RecordRequest_Renew{Renew: &pb.RecorderRenew{Executing: r.attempts()}}
			if err := stream.Send(&pb.RecordRequest{Message: renew}); err != nil {
				return <-failed
			}
		case err := <-failed:
			return err
		case <-leave:
			return nil
		case <-ctx.Done():
			_ = stream.Send(&pb.RecordRequest{Message: &pb.RecordRequest_Seal{Seal: &pb.RecorderSeal{}}})
			_ = stream.CloseSend()
			<-failed
			return nil
		}
	}
}

func (r *Recorder) open() *pb.RecorderOpen {
	host, _ := os.Hostname()
	r.mutex.Lock()
	last := r.durable + uint64(len(r.entries))
	known := r.durable
	r.mutex.Unlock()
	return &pb.RecorderOpen{
		ProtocolMin: 1, ProtocolMax: 1, RecorderId: r.id, KnownDurableSeq: known, LastSeq: last,
		Executing: r.attempts(),
		Sdk:       &pb.SdkInfo{Name: "headrace-go-example", Version: "1", Language: "go", Host: host, Pid: int64(os.Getpid())},
	}
}

func (r *Recorder) unsent(sent uint64, most int) ([]*pb.RecordEntry, <-chan struct{}) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	from := 0
	if sent > r.durable {
		from = int(sent - r.durable)
	}
	batch := r.entries[from:]
	if len(batch) > most {
		batch = batch[:most]
	}
	return append([]*pb.RecordEntry(nil), batch...), r.changed
}

func (r *Recorder) attempts() []*pb.AttemptRef {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	var attempts []*pb.AttemptRef
	for _, one := range r.executing {
		attempts = append(attempts, one.attempt)
	}
	return attempts
}

func (r *Recorder) acknowledge(ack *pb.RecordAck) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if ack.DurableSeq > r.durable {
		r.entries = r.entries[ack.DurableSeq-r.durable:]
		r.durable = ack.DurableSeq
	}
	for _, result := range ack.Results {
		if answer, asked := r.answers[result.Seq]; asked {
			answer <- result
			delete(r.answers, result.Seq)
		}
	}
	for seq, done := range r.waiting {
		if seq <= r.durable {
			close(done)
			delete(r.waiting, seq)
		}
	}
}

func (r *Recorder) judge(verdicts []*pb.AttemptVerdict) {
	for _, verdict := range verdicts {
		r.mutex.Lock()
		one, known := r.executing[verdict.Attempt.RunId]
		r.mutex.Unlock()
		if known && verdict.Lost && one.attempt.Fence == verdict.Attempt.Fence {
			one.lost(verdict.Reason)
		}
	}
}
