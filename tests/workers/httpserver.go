// An ordinary Go server: httpserver HOST:PORT
package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Maitred-Slot", os.Getenv("MAITRED_SLOT"))
		fmt.Fprintf(w, "slot %s, process %d\n", os.Getenv("MAITRED_SLOT"), os.Getpid())
	})
	if err := http.ListenAndServe(os.Args[1], nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
