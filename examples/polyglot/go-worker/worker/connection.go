package worker

import (
	"context"
	"errors"
	"time"

	pb "headrace.dev/polyglot/gen/headrace/v1"
)

// connection is one stream. Only `write` sends on it: a stream takes one sender.
type connection struct {
	worker   *Worker
	outgoing chan *pb.ConnectRequest
	done     chan struct{}
	replaced chan struct{} // closed when another connection has taken over
}

func newConnection(worker *Worker) *connection {
	return &connection{worker, make(chan *pb.ConnectRequest, 1000), make(chan struct{}), make(chan struct{})}
}

// send queues a message; a connection that has ended drops it, since the next hello says it all again.
func (c *connection) send(message *pb.ConnectRequest) {
	select {
	case c.outgoing <- message:
	case <-c.done:
	}
}

// run speaks until the stream ends, or another connection has taken over. `leaving` is called when the server
// wants to stop: the next stream is then opened first, so that nothing that is said meanwhile is lost.
func (c *connection) run(ctx context.Context, backoff *backoff, leaving func(after time.Duration)) error {
	defer close(c.done)
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stream, err := c.worker.client.Connect(inner)
	if err != nil {
		return err
	}
	hello := &pb.ConnectRequest_Hello{Hello: c.worker.hello()}
	if err := stream.Send(&pb.ConnectRequest{Message: hello}); err != nil {
		_, err = stream.Recv()
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	welcome := first.GetWelcome()
	if welcome == nil {
		return errors.New("the server did not say welcome")
	}
	backoff.reset()
	c.worker.welcomed(c, welcome)

	received := make(chan *pb.ConnectResponse, 100)
	failed := make(chan error, 1)
	go func() {
		for {
			message, err := stream.Recv()
			if err != nil {
				failed <- err
				return
			}
			received <- message
		}
	}()
	return c.converse(ctx, stream, welcome, received, failed, leaving)
}

func (c *connection) converse(
	ctx context.Context, stream pb.WorkerService_ConnectClient, welcome *pb.ServerWelcome,
	received <-chan *pb.ConnectResponse, failed <-chan error, leaving func(after time.Duration),
) error {
	interval := welcome.HeartbeatInterval.AsDuration()
	beat := time.NewTicker(interval)
	defer beat.Stop()
	answered := time.Now()
	var seq uint64
	for {
		var next *pb.ConnectRequest
		select {
		case message := <-received:
			if message.GetHeartbeatAck() != nil {
				answered = time.Now()
			}
			if drain := message.GetDrain(); drain != nil {
				leaving(drain.ReconnectAfter.AsDuration())
			}
			if away := message.GetGoAway(); away != nil {
				return errors.New(away.Reason)
			}
			c.handle(message)
		case next = <-c.outgoing:
		case <-beat.C:
			if time.Since(answered) > 3*interval {
				return errors.New("the server has fallen silent")
			}
			seq++
			next = &pb.ConnectRequest{Message: &pb.ConnectRequest_Heartbeat{Heartbeat: c.worker.heartbeat(seq)}}
		case err := <-failed:
			return err
		case <-c.replaced:
			return stream.CloseSend()
		case <-ctx.Done():
			goodbye := &pb.ConnectRequest_Goodbye{Goodbye: &pb.WorkerGoodbye{}}
			_ = stream.Send(&pb.ConnectRequest{Message: goodbye})
			_ = stream.CloseSend()
			<-failed
			return nil
		}
		if next != nil {
			if err := stream.Send(next); err != nil {
				return <-failed
			}
		}
	}
}

func (c *connection) handle(response *pb.ConnectResponse) {
	switch message := response.Message.(type) {
	case *pb.ConnectResponse_Assignment:
		c.worker.take(c, message.Assignment)
	case *pb.ConnectResponse_HeartbeatAck:
		c.worker.lose(message.HeartbeatAck.Lost)
		for _, cancel := range message.HeartbeatAck.PendingCancels {
			c.worker.cancel(c, cancel)
		}
	case *pb.ConnectResponse_Cancel:
		c.worker.cancel(c, message.Cancel)
	case *pb.ConnectResponse_DrainRequest:
		go c.worker.drain(message.DrainRequest.Deadline.AsDuration())
	}
}

func (w *Worker) heartbeat(seq uint64) *pb.WorkerHeartbeat {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return &pb.WorkerHeartbeat{
		Seq: seq, Held: w.holding(), Credit: &pb.WorkerCredit{GrantedTotal: w.granted},
	}
}
