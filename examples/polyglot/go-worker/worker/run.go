package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "headrace.dev/polyglot/gen/headrace/v1"
)

// Handler is a flow written in Go. What it returns is kept as JSON; the context ends when the run is to stop.
type Handler func(ctx context.Context, run *Run) (any, error)

// Run is what a handler is given.
type Run struct {
	Assignment *pb.Assignment
	recorder   *Recorder
}

var errLost = errors.New("the run is not ours any more")
var errCancelled = errors.New("the run was cancelled")

// Parameters reads the run's parameters into a value, usually a pointer to a struct with json tags.
func (r *Run) Parameters(into any) error {
	payload := r.Assignment.Run.Parameters
	if payload == nil {
		return nil
	}
	if payload.Encoding != "json" || payload.GetInline() == nil {
		return fmt.Errorf("parameters are %q, and this worker reads inline json only", payload.Encoding)
	}
	return json.Unmarshal(payload.GetInline(), into)
}

// Log writes one line of the run's log.
func (r *Run) Log(format string, values ...any) {
	r.recorder.Post(&pb.RecordEntry{Kind: &pb.RecordEntry_Log{Log: &pb.LogEntry{
		RunId: r.Assignment.Run.Id, RootRunId: r.Assignment.Run.RootRunId, Time: timestamppb.Now(), Level: 20,
		Logger: "go-worker", Message: fmt.Sprintf(format, values...), Attempt: r.Assignment.Attempt.Attempt,
	}}})
}

// execute takes the run from RUNNING to its end, and returns once the end is in the server's database.
func (r *Run) execute(ctx context.Context, handler Handler, cause func() error) error {
	attempt := r.Assignment.Attempt
	running := newState(pb.StateType_STATE_TYPE_RUNNING)
	running.Details = &pb.State_Running{Running: &pb.RunningDetails{}}
	for {
		result, err := r.recorder.Propose(ctx, attempt, running)
		if err != nil {
			break // stopped before it began
		}
		if result.GetError() != nil {
			return fmt.Errorf("may not run: %s", result.GetError().Message)
		}
		if wait := result.GetVerdict().GetWait(); wait != nil {
			sleep(ctx, wait.RetryAfter.AsDuration())
			running = newState(pb.StateType_STATE_TYPE_RUNNING)
			running.Details = &pb.State_Running{Running: &pb.RunningDetails{}}
			continue
		}
		if result.GetVerdict().GetAccepted() == nil {
			return fmt.Errorf("the server wants another state: %v", result.GetVerdict())
		}
		break
	}
	final := r.final(ctx, handler, cause)
	if final == nil {
		return errLost
	}
	seq := r.recorder.Post(&pb.RecordEntry{Kind: &pb.RecordEntry_State{State: &pb.StateEntry{
		Attempt: attempt, State: final,
	}}})
	return r.recorder.Durable(context.WithoutCancel(ctx), seq)
}

// final runs the handler and says how it ended; nil when that is nobody's business any more.
func (r *Run) final(ctx context.Context, handler Handler, cause func() error) (state *pb.State) {
	defer func() {
		if panicked := recover(); panicked != nil {
			state = newState(pb.StateType_STATE_TYPE_CRASHED)
			state.Message = fmt.Sprintf("The worker's code panicked: %v", panicked)
			state.Details = &pb.State_Crashed{Crashed: &pb.CrashedDetails{
				Cause: pb.CrashedDetails_CAUSE_INFRASTRUCTURE,
				Error: &pb.ErrorDescription{
					Type: "panic", Message: fmt.Sprint(panicked), Traceback: string(debug.Stack()),
				},
			}}
		}
	}()
	value, err := handler(ctx, r)
	switch {
	case errors.Is(cause(), errLost):
		return nil
	case errors.Is(cause(), errCancelled) && err != nil:
		state = newState(pb.StateType_STATE_TYPE_CANCELLED)
		state.Message = "The worker stopped the run."
		state.Details = &pb.State_Cancel{Cancel: &pb.CancelDetails{}}
		return state
	case err != nil:
		return failed(fmt.Sprintf("%T", err), err)
	}
	kept, err := json.Marshal(value)
	if err != nil {
		return failed("json.Marshal", err)
	}
	state = newState(pb.StateType_STATE_TYPE_COMPLETED)
	state.Data = &pb.Payload{Encoding: "json", Body: &pb.Payload_Inline{Inline: kept}}
	state.Details = &pb.State_Completed{Completed: &pb.CompletedDetails{}}
	return state
}

func failed(kind string, err error) *pb.State {
	state := newState(pb.StateType_STATE_TYPE_FAILED)
	state.Message = err.Error()
	state.Details = &pb.State_Failed{Failed: &pb.FailedDetails{
		Error: &pb.ErrorDescription{Type: kind, Message: err.Error()},
	}}
	return state
}

func newState(kind pb.StateType) *pb.State {
	return &pb.State{Id: NewID(), Type: kind, EventTime: timestamppb.Now()}
}

func sleep(ctx context.Context, duration time.Duration) {
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
