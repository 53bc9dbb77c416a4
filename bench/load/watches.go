package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// The watches that are open, and how many lines each sum of them has read.
var (
	opened    []*http.Client
	lines     atomic.Int64
	open_     atomic.Int64
	watching  context.Context
	unwatch   context.CancelFunc = func() {}
	latencies struct {
		sync.Mutex
		took []time.Duration
	}
)

// stamp precedes the sender's clock, in nanoseconds, in what is watched.
var stamp = []byte(`"sent":"`)

// watch opens `count` watches over `connections` connections: of `path`, or the agents' own in turn.
func watch(order *Order) (Result, error) {
	if watching == nil {
		watching, unwatch = context.WithCancel(context.Background())
	}
	connections := make([]*http.Client, max(1, order.Connections))
	for index := range connections {
		connections[index] = client(order.HTTP2)
	}
	opened = append(opened, connections...)
	var next atomic.Int64
	var group sync.WaitGroup
	var failed atomic.Value
	started := time.Now()
	for range 64 {
		group.Go(func() {
			for number := int(next.Add(1)) - 1; number < order.Count; number = int(next.Add(1)) - 1 {
				through := connections[number%len(connections)]
				token := order.Token
				if order.Agents != "" {
					token = tokenOf(order.Agents, order.First+number)
				}
				if err := follow(through, numbered(order.Path, order.First+number), token); err != nil {
					failed.Store(err)
					return
				}
			}
		})
	}
	group.Wait()
	err, _ := failed.Load().(error)
	return Result{"seconds": time.Since(started).Seconds(), "open": open_.Load()}, err
}

func follow(through *http.Client, path, token string) error {
	response, err := open(watching, through, "GET", path, token, "")
	if err != nil {
		return err
	}
	if response.StatusCode != 200 {
		return fmt.Errorf("GET %s: %d", path, response.StatusCode)
	}
	open_.Add(1)
	go func() {
		defer open_.Add(-1)
		defer response.Body.Close()
		buffer := make([]byte, 2048)
		rest := []byte{}
		for {
			count, err := response.Body.Read(buffer)
			now := time.Now()
			rest = append(rest, buffer[:count]...)
			for {
				end := bytes.IndexByte(rest, '\n')
				if end < 0 {
					break
				}
				seen(rest[:end], now)
				rest = rest[end+1:]
			}
			if len(rest) == 0 {
				rest = nil
			}
			if err != nil {
				return
			}
		}
	}()
	return nil
}

func seen(line []byte, now time.Time) {
	lines.Add(1)
	at := bytes.Index(line, stamp)
	if at < 0 {
		return
	}
	text, _, _ := bytes.Cut(line[at+len(stamp):], []byte(`"`))
	if sent, err := strconv.ParseInt(string(text), 10, 64); err == nil && sent > 0 {
		latencies.Lock()
		latencies.took = append(latencies.took, now.Sub(time.Unix(0, sent)))
		latencies.Unlock()
	}
}

// event makes one change and waits until every open watch has read a line of it.
func event(order *Order) (Result, error) {
	want := lines.Load() + open_.Load()
	started := time.Now()
	if err := once(order, client(false), order.First, order.Token); err != nil {
		return nil, err
	}
	for lines.Load() < want {
		if time.Since(started) > 2*time.Minute {
			return nil, fmt.Errorf("%d of the watches did not hear of it", want-lines.Load())
		}
		time.Sleep(time.Millisecond)
	}
	return Result{"seconds": time.Since(started).Seconds(), "watches": open_.Load()}, nil
}

// stream makes `per_second` changes, evenly, and says how late the watches that are open heard of them.
func stream(order *Order) (Result, error) {
	latencies.Lock()
	latencies.took = nil
	latencies.Unlock()
	before := lines.Load()
	total := int(order.Seconds * float64(order.PerSecond))
	var next atomic.Int64
	var group sync.WaitGroup
	var failed atomic.Value
	started := time.Now()
	for range max(1, order.Connections) {
		group.Go(func() {
			through := client(order.HTTP2)
			defer through.CloseIdleConnections()
			for number := int(next.Add(1)) - 1; number < total; number = int(next.Add(1)) - 1 {
				due := started.Add(time.Duration(number) * time.Second / time.Duration(order.PerSecond))
				time.Sleep(time.Until(due))
				sent := *order
				sent.Body = string(bytes.ReplaceAll([]byte(order.Body), []byte("%sent"),
					[]byte(strconv.FormatInt(time.Now().UnixNano(), 10))))
				if err := once(&sent, through, order.First+number%order.Count, order.Token); err != nil {
					failed.Store(err)
					return
				}
			}
		})
	}
	group.Wait()
	took := time.Since(started).Seconds()
	for begun := time.Now(); lines.Load()-before < int64(total) && time.Since(begun) < 30*time.Second; {
		time.Sleep(10 * time.Millisecond)
	}
	err, _ := failed.Load().(error)
	latencies.Lock()
	defer latencies.Unlock()
	slices.Sort(latencies.took)
	result := summary(latencies.took, took)
	result["sent"] = total
	return result, err
}

// closeWatches ends all watches.
func closeWatches(*Order) (Result, error) {
	unwatch()
	for begun := time.Now(); open_.Load() > 0 && time.Since(begun) < time.Minute; {
		time.Sleep(time.Millisecond)
	}
	watching = nil
	for _, through := range opened {
		through.Transport.(*http.Transport).CloseIdleConnections()
	}
	opened = nil
	return Result{"open": open_.Load()}, nil
}
