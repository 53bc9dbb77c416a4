// Load for an API server: reads one order a line of JSON, does it, answers one line of JSON.
//
// A program of its own, so that what is measured is the server: net/http over TLS, HTTP/1.1 or HTTP/2.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
)

// Order is one line of standard input. Paths and bodies may hold %d: the number of the request.
type Order struct {
	Op          string   `json:"op"`
	Method      string   `json:"method"`
	Path        string   `json:"path"`
	Body        string   `json:"body"`
	Token       string   `json:"token"`
	Agents      string   `json:"agents"` // prefix of agents' names; requests are theirs in turn
	First       int      `json:"first"`
	Count       int      `json:"count"`
	Connections int      `json:"connections"`
	Seconds     float64  `json:"seconds"`
	PerSecond   int      `json:"per_second"`
	HTTP2       bool     `json:"http2"`
	Paths       []string `json:"paths"`
	Bodies      []string `json:"bodies"`
	Status      int      `json:"status"`
}

// Result is what an order came to.
type Result map[string]any

var orders = map[string]func(*Order) (Result, error){
	"rate":   rate,
	"agents": agents,
	"each":   each,
	"watch":  watch,
	"event":  event,
	"stream": stream,
	"close":  closeWatches,
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: load https://HOST:PORT CA_FILE")
		os.Exit(2)
	}
	if err := connect(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 1<<16), 64<<20)
	answers := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var order Order
		err := json.Unmarshal(lines.Bytes(), &order)
		result := Result{}
		if err == nil {
			if do := orders[order.Op]; do != nil {
				result, err = do(&order)
			} else {
				err = fmt.Errorf("no such order: %q", order.Op)
			}
		}
		if err != nil {
			result = Result{"error": err.Error()}
		}
		answers.Encode(result)
	}
}
