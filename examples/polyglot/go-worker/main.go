// A headrace worker written in Go: it serves the flows below from one work pool.
package main

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"os"
	"os/signal"
	"sort"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"headrace.dev/polyglot/worker"
)

func main() {
	server := flag.String("server", "127.0.0.1:4200", "address of the headrace server")
	pool := flag.String("pool", "go", "work pool to take runs from")
	kind := flag.String("type", "go", "type of the work pool")
	name := flag.String("name", "go-worker", "name of the worker")
	limit := flag.Int("limit", 4, "runs at once")
	grace := flag.Duration("grace", 30*time.Second, "how long runs may go on after Ctrl-C")
	flag.Parse()

	connection, err := grpc.NewClient(
		*server, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 20 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true,
		}),
	)
	if err != nil {
		slog.Error("that is no address of a server", "address", *server, "error", err)
		os.Exit(2)
	}
	defer connection.Close()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	works := worker.New(connection, worker.Options{
		Pool: *pool, Type: *kind, Name: *name, Limit: *limit, Grace: *grace,
		Handlers: map[string]worker.Handler{"go:count_words": countWords, "go:count_down": countDown},
	})
	if err := works.Run(ctx); err != nil {
		slog.Error("the server does not have this worker", "error", err)
		os.Exit(1)
	}
}

// countWords says which words of a text are the most frequent.
func countWords(ctx context.Context, run *worker.Run) (any, error) {
	var parameters struct {
		Text string `json:"text"`
		Top  int    `json:"top"`
	}
	parameters.Top = 3
	if err := run.Parameters(&parameters); err != nil {
		return nil, err
	}
	if parameters.Text == "" {
		return nil, errors.New("there is no text to count the words of")
	}
	counts := map[string]int{}
	for _, word := range strings.Fields(strings.ToLower(parameters.Text)) {
		counts[strings.Trim(word, ".,;:!?\"'()")]++
	}
	type count struct {
		Word  string `json:"word"`
		Count int    `json:"count"`
	}
	var all []count
	for word, n := range counts {
		all = append(all, count{word, n})
	}
	sort.Slice(all, func(i, j int) bool {
		if all[i].Count != all[j].Count {
			return all[i].Count > all[j].Count
		}
		return all[i].Word < all[j].Word
	})
	run.Log("%d words, %d different", len(strings.Fields(parameters.Text)), len(all))
	return all[:min(parameters.Top, len(all))], nil
}

// countDown takes its time, and stops when it is told to.
func countDown(ctx context.Context, run *worker.Run) (any, error) {
	parameters := struct {
		Seconds int `json:"seconds"`
	}{10}
	if err := run.Parameters(&parameters); err != nil {
		return nil, err
	}
	for left := parameters.Seconds; left > 0; left-- {
		run.Log("%d", left)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return "lift-off", nil
}
