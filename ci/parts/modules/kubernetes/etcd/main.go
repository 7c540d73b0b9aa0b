// Command etcd is the server of the module go.etcd.io/etcd/server, which ships no installable command.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
