// An ordinary Go server that tells its slot: http HOST:PORT
package main

import (
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	slot := os.Getenv("MAITRED_SLOT")
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Maitred-Slot", slot)
		io.WriteString(w, "ok\n")
	})
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
