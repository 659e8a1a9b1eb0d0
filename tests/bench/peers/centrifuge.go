// Centrifugo's engine, the library centrifuge: JSON protocol, one server-side subscription without history, no pings.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/centrifugal/centrifuge"
)

const channel = "bench"

func main() {
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		log.Fatal(err)
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{
			Credentials:    &centrifuge.Credentials{UserID: "device"},
			Data:           []byte(`{"t":"welcome"}`),
			Subscriptions:  map[string]centrifuge.SubscribeOptions{channel: {}},
			PingPongConfig: &centrifuge.PingPongConfig{PingInterval: -1, PongTimeout: -1},
		}, nil
	})
	if err := node.Run(); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	any := func(*http.Request) bool { return true }
	http.Handle("/ws", centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{CheckOrigin: any}))
	go func() { log.Fatal(http.Serve(listener, nil)) }()
	fmt.Println("port", listener.Addr().(*net.TCPAddr).Port)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if _, err := node.Publish(channel, []byte(strings.TrimPrefix(lines.Text(), "send "))); err != nil {
			log.Fatal(err)
		}
	}
}
