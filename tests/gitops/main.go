// How GitOps tools interpret an object, by their own libraries: Flux' kstatus, and Lua as Argo CD runs it.
//
//	gitops kstatus            what kstatus computes, and its message
//	gitops health SCRIPT      what a health check of Argo CD returns, as JSON
//	gitops actions SCRIPT     what discovery.lua returns, as JSON
//	gitops action SCRIPT      the merge patch that Argo CD would send after this action.lua
//
// The object is read from stdin, as JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	lua "github.com/yuin/gopher-lua"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	luajson "layeh.com/gopher-json"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(text); err != nil {
		return err
	}
	if len(args) == 1 && args[0] == "kstatus" {
		result, err := status.Compute(object)
		if err != nil {
			return err
		}
		fmt.Printf("%s: %s\n", result.Status, result.Message)
		return nil
	}
	if len(args) != 2 {
		return errors.New("usage: gitops kstatus | health SCRIPT | actions SCRIPT | action SCRIPT")
	}
	returned, err := runLua(object.Object, args[1])
	if err != nil {
		return err
	}
	switch args[0] {
	case "health", "actions":
		fmt.Println(string(returned))
		return nil
	case "action":
		return printPatch(object.Object, returned)
	default:
		return fmt.Errorf("unknown command %s", args[0])
	}
}

// runLua runs a script as Argo CD does: within a second, with the libraries package, base and table, and an os library
// with the time only; no strings, no patterns, no mathematics.
func runLua(object map[string]any, script string) ([]byte, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	limit, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	state.SetContext(limit)
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{{lua.LoadLibName, lua.OpenPackage}, {lua.BaseLibName, lua.OpenBase}, {lua.TabLibName, lua.OpenTable}} {
		open := lua.P{Fn: state.NewFunction(library.open), Protect: true}
		if err := state.CallByParam(open, lua.LString(library.name)); err != nil {
			return nil, err
		}
	}
	state.PreloadModule(lua.OsLibName, openTime)
	state.SetGlobal("obj", toLua(state, object))
	if err := state.DoString(script); err != nil {
		return nil, err
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return nil, fmt.Errorf("the script returns no table but %s", state.Get(-1).Type())
	}
	return luajson.Encode(table)
}

// openTime is Lua's os library, reduced to the time.
func openTime(state *lua.LState) int {
	lua.OpenOs(state)
	all := state.CheckTable(-1)
	state.SetGlobal(lua.OsLibName, lua.LNil)
	module := state.NewTable()
	for _, name := range []string{"time", "date"} {
		module.RawSetString(name, all.RawGetString(name))
	}
	state.Push(module)
	return 1
}

// toLua converts a JSON value, whose numbers are int64 or float64.
func toLua(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case bool:
		return lua.LBool(value)
	case string:
		return lua.LString(value)
	case int64:
		return lua.LNumber(value)
	case float64:
		return lua.LNumber(value)
	case []any:
		table := state.NewTable()
		for _, item := range value {
			table.Append(toLua(state, item))
		}
		return table
	case map[string]any:
		table := state.NewTable()
		for key, item := range value {
			table.RawSetString(key, toLua(state, item))
		}
		return table
	default:
		return lua.LNil
	}
}

func printPatch(before map[string]any, returned []byte) error {
	var after map[string]any
	if err := json.Unmarshal(returned, &after); err != nil {
		return err
	}
	keepEmptyMaps(after, before)
	from, err := json.Marshal(before)
	if err != nil {
		return err
	}
	to, err := json.Marshal(after)
	if err != nil {
		return err
	}
	patch, err := jsonpatch.CreateMergePatch(from, to)
	if err != nil {
		return err
	}
	fmt.Println(string(patch))
	return nil
}

// keepEmptyMaps restores empty maps: an empty table of Lua is an empty list in JSON. Argo CD does the same.
func keepEmptyMaps(after, before map[string]any) {
	for key, was := range before {
		was, ok := was.(map[string]any)
		if !ok {
			continue
		}
		switch is := after[key].(type) {
		case map[string]any:
			keepEmptyMaps(is, was)
		case []any:
			if len(is) == 0 {
				after[key] = was
			}
		}
	}
}
