// A TLS peer on Go's crypto/tls. Reads one command a line, answers one line; see agent.rs.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

var sessions = map[string]tls.ClientSessionCache{}

var versions = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

func config(options map[string]string) (*tls.Config, error) {
	offered := strings.Split(options["versions"], ",")
	config := &tls.Config{
		MinVersion: versions[offered[0]],
		MaxVersion: versions[offered[len(offered)-1]],
		ServerName: options["name"],
	}
	if file, ok := options["certificate"]; ok {
		pair, err := tls.LoadX509KeyPair(file, options["key"])
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	if file, ok := options["authority"]; ok {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM(pem)
		config.ClientCAs = config.RootCAs
		config.ClientAuth = tls.RequireAndVerifyClientCert
	} else {
		config.InsecureSkipVerify = true
	}
	if alpn, ok := options["alpn"]; ok {
		config.NextProtos = strings.Split(alpn, ",")
	}
	return config, nil
}

func answer(stream net.Conn) {
	defer stream.Close()
	if n, _ := stream.Read(make([]byte, 4096)); n > 0 {
		fmt.Fprint(stream, "HTTP/1.0 200 OK\r\n\r\nhello\n")
	}
}

func listen(options map[string]string) error {
	config, err := config(options)
	if err != nil {
		return err
	}
	listener, err := tls.Listen("tcp", ":"+options["port"], config)
	if err != nil {
		return err
	}
	go func() {
		for {
			stream, err := listener.Accept()
			if err != nil {
				return
			}
			go answer(stream)
		}
	}()
	return nil
}

func connect(options map[string]string) error {
	config, err := config(options)
	if err != nil {
		return err
	}
	if name, ok := options["session"]; ok {
		if sessions[name] == nil {
			sessions[name] = tls.NewLRUClientSessionCache(1)
		}
		config.ClientSessionCache = sessions[name]
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	stream, err := tls.DialWithDialer(dialer, "tcp", net.JoinHostPort(options["address"], options["port"]), config)
	if err != nil {
		return err
	}
	defer stream.Close()
	fmt.Fprint(stream, "GET / HTTP/1.0\r\n\r\n")
	_, err = io.Copy(io.Discard, stream)
	return err
}

func main() {
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		words := strings.Fields(commands.Text())
		options := map[string]string{}
		for _, word := range words[1:] {
			if key, value, ok := strings.Cut(word, "="); ok {
				options[key] = value
			}
		}
		reply, verb := "done", connect
		if words[0] == "listen" {
			reply, verb = "listening", listen
		}
		if err := verb(options); err != nil {
			reply = "failed " + strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Println(reply)
	}
}
