package worker

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	random "math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// backoff waits up to twice as long each time, from 0.2 s to 30 s, at random so that workers do not come
// back all at once.
type backoff struct{ ceiling time.Duration }

func newBackoff() *backoff { return &backoff{200 * time.Millisecond} }

func (b *backoff) reset() { b.ceiling = 200 * time.Millisecond }

func (b *backoff) wait(ctx context.Context) {
	sleep(ctx, time.Duration(random.Int64N(int64(b.ceiling))))
	b.ceiling = min(2*b.ceiling, 30*time.Second)
}

// isFinal says whether another try cannot help.
func isFinal(err error) bool {
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.FailedPrecondition, codes.InvalidArgument,
		codes.Unimplemented:
		return true
	}
	return false
}

// NewID makes a UUID of version 7: ids sort by the time they were made.
func NewID() string {
	var id [16]byte
	if _, err := rand.Read(id[6:]); err != nil {
		panic(err)
	}
	binary.BigEndian.PutUint64(id[:8], uint64(time.Now().UnixMilli())<<16|uint64(binary.BigEndian.Uint16(id[6:8])))
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}
