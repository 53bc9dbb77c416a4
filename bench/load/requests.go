package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

var (
	server string
	roots  *x509.CertPool
	// Tokens of the agents that were made here, by name.
	tokens sync.Map
)

func connect(url, caFile string) error {
	server = strings.TrimRight(url, "/")
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return err
	}
	roots = x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s holds no certificate", caFile)
	}
	return nil
}

// client has one connection: HTTP/1.1 with one request at a time, or HTTP/2 with many streams.
func client(http2 bool) *http.Client {
	config := &tls.Config{RootCAs: roots}
	if !http2 {
		config.NextProtos = []string{"http/1.1"}
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:     config,
		ForceAttemptHTTP2:   http2,
		MaxConnsPerHost:     1,
		MaxIdleConnsPerHost: 1,
		DisableCompression:  true,
		ReadBufferSize:      4096,
		WriteBufferSize:     4096,
	}}
}

func numbered(text string, number int) string {
	return strings.ReplaceAll(text, "%d", fmt.Sprint(number))
}

func send(through *http.Client, method, path, token, body string) (int, []byte, error) {
	response, err := open(context.Background(), through, method, path, token, body)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

func open(
	within context.Context, through *http.Client, method, path, token, body string,
) (*http.Response, error) {
	var content io.Reader
	if body != "" {
		content = bytes.NewReader([]byte(body))
	}
	request, err := http.NewRequestWithContext(within, method, server+path, content)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Accept", "application/json")
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	return through.Do(request)
}

// among runs work on `connections` clients at once until it says that there is no more, and keeps its times.
func among(order *Order, work func(*http.Client, int) (bool, error)) ([]time.Duration, float64, error) {
	var next atomic.Int64
	var mutex sync.Mutex
	var group sync.WaitGroup
	var failed error
	took := []time.Duration{}
	connections := max(1, order.Connections)
	started := time.Now()
	for range connections {
		group.Go(func() {
			through := client(order.HTTP2)
			defer through.CloseIdleConnections()
			mine := []time.Duration{}
			for {
				begun := time.Now()
				more, err := work(through, int(next.Add(1))-1)
				if err != nil {
					mutex.Lock()
					failed = err
					mutex.Unlock()
				}
				if err != nil || !more {
					break
				}
				mine = append(mine, time.Since(begun))
			}
			mutex.Lock()
			took = append(took, mine...)
			mutex.Unlock()
		})
	}
	group.Wait()
	return took, time.Since(started).Seconds(), failed
}

func summary(took []time.Duration, seconds float64) Result {
	slices.Sort(took)
	at := func(part float64) float64 {
		if len(took) == 0 {
			return 0
		}
		index := min(len(took)-1, int(part*float64(len(took))))
		return float64(took[index].Microseconds()) / 1000
	}
	return Result{
		"count": len(took), "seconds": seconds, "per_second": float64(len(took)) / seconds,
		"p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1),
	}
}

// rate sends requests for so many seconds, every connection busy.
func rate(order *Order) (Result, error) {
	until := time.Now().Add(time.Duration(order.Seconds * float64(time.Second)))
	took, seconds, err := among(order, func(through *http.Client, number int) (bool, error) {
		if !time.Now().Before(until) {
			return false, nil
		}
		return true, once(order, through, order.First+number, order.Token)
	})
	return summary(took, seconds), err
}

func once(order *Order, through *http.Client, number int, token string) error {
	path, body := numbered(order.Path, number), numbered(order.Body, number)
	status, answer, err := send(through, order.Method, path, token, body)
	// Status 0 expects nothing in particular, such as of one who is told to come back later.
	if err == nil && order.Status != 0 && status != order.Status {
		err = fmt.Errorf("%s %s: %d: %.300s", order.Method, path, status, answer)
	}
	return err
}

// each sends one request for each number, with the token of the agent of that number if agents are named.
func each(order *Order) (Result, error) {
	took, seconds, err := among(order, func(through *http.Client, number int) (bool, error) {
		if number >= order.Count {
			return false, nil
		}
		number += order.First
		token := order.Token
		if order.Agents != "" {
			token = tokenOf(order.Agents, number)
		}
		return true, once(order, through, number, token)
	})
	return summary(took, seconds), err
}

func tokenOf(prefix string, number int) string {
	token, _ := tokens.Load(fmt.Sprintf("%s%d", prefix, number))
	text, _ := token.(string)
	return text
}

const secrets = "/clusters/fleet/api/v1/namespaces/walras-system/secrets"

// agents asks for control planes, %name in the body, and keeps their tokens: a time ends with the first
// answer to a token of one's own. The result has that of the first.
func agents(order *Order) (Result, error) {
	if err := followSecrets(order.Token); err != nil {
		return nil, err
	}
	took, seconds, err := among(order, func(through *http.Client, number int) (bool, error) {
		if number >= order.Count {
			return false, nil
		}
		name := fmt.Sprintf("%s%d", order.Agents, order.First+number)
		return true, newAgent(through, name, order)
	})
	result := summary(took, seconds)
	result["token"] = tokenOf(order.Agents, order.First)
	return result, err
}

func newAgent(through *http.Client, name string, order *Order) error {
	known := make(chan string, 1)
	awaited.Store(name, known)
	body := strings.ReplaceAll(order.Body, "%name", name)
	status, answer, err := send(through, "POST", order.Path, order.Token, body)
	if err != nil || status != 201 {
		return fmt.Errorf("agent %s: %d: %.300s (%v)", name, status, answer, err)
	}
	var token string
	select {
	case token = <-known:
	case <-time.After(time.Minute):
		return fmt.Errorf("agent %s: no token after a minute", name)
	}
	tokens.Store(name, token)
	own := "/clusters/" + name + "/api/v1/namespaces/default"
	for {
		status, _, err = send(through, "GET", own, token, "")
		if err != nil || status == 200 {
			return err
		}
		time.Sleep(500 * time.Microsecond)
	}
}

// Who waits for the token of an agent, by its name.
var awaited sync.Map

// followSecrets hands out the tokens as they are made: one watch for all, begun once.
var followSecrets = func() func(string) error {
	var once sync.Once
	var err error
	return func(operator string) error {
		once.Do(func() {
			var response *http.Response
			path := secrets + "?watch=true"
			response, err = open(context.Background(), client(true), "GET", path, operator, "")
			if err == nil && response.StatusCode != 200 {
				err = fmt.Errorf("GET %s: %d", path, response.StatusCode)
			}
			if err == nil {
				go handOut(json.NewDecoder(response.Body))
			}
		})
		return err
	}
}()

func handOut(events *json.Decoder) {
	for {
		var event struct {
			Object struct {
				Metadata struct{ Name string }
				Data     map[string][]byte
			}
		}
		if events.Decode(&event) != nil {
			return
		}
		name := strings.TrimPrefix(event.Object.Metadata.Name, "agent-")
		if known, found := awaited.LoadAndDelete(name); found {
			known.(chan string) <- string(event.Object.Data["token"])
		}
	}
}
