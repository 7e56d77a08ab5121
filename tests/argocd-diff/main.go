// What Argo CD's own diff says of objects as they are in Git and in the cluster.
//
// It reads a JSON list of {"config": object, "live": object} from stdin, and prints a line for each that is out of sync, with what
// Argo CD would show on both sides.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/diff"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type pair struct {
	Config map[string]any `json:"config"`
	Live   map[string]any `json:"live"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var pairs []pair
	if err := json.NewDecoder(os.Stdin).Decode(&pairs); err != nil {
		return err
	}
	for _, it := range pairs {
		config, live := &unstructured.Unstructured{Object: it.Config}, &unstructured.Unstructured{Object: it.Live}
		result, err := diff.Diff(config, live)
		if err != nil {
			return fmt.Errorf("%s %s: %w", config.GetKind(), config.GetName(), err)
		}
		if result.Modified {
			fmt.Printf("%s %s\n  live: %s\n  git:  %s\n", config.GetKind(), config.GetName(), result.NormalizedLive, result.PredictedLive)
		}
	}
	return nil
}
