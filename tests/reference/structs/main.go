// Structs prints how Kubernetes' Go types are written as JSON, which no OpenAPI document says: of each struct
// the fields that are left out when they are zero, and those that are written whatever they hold.
package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/client-go/kubernetes/scheme"
)

// Of a definition: fields whose zero value is left out, structs held by value, and zero values that are written.
type shape struct {
	Dropped []string       `json:"dropped,omitempty"`
	Structs []string       `json:"structs,omitempty"`
	Zeros   map[string]any `json:"zeros,omitempty"`
}

var shapes = map[string]*shape{}

var marshals = reflect.TypeOf((*json.Marshaler)(nil)).Elem()

// The name by which OpenAPI knows a type.
func nameOf(t reflect.Type) string {
	path := strings.ReplaceAll(t.PkgPath(), "k8s.io/", "io.k8s.")
	return strings.ReplaceAll(path, "/", ".") + "." + t.Name()
}

func ours(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && strings.HasPrefix(t.PkgPath(), "k8s.io/")
}

func own(t reflect.Type) bool {
	return t.Implements(marshals) || reflect.PointerTo(t).Implements(marshals)
}

func visit(t reflect.Type) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if !ours(t) || own(t) || shapes[nameOf(t)] != nil {
		return
	}
	found := &shape{Zeros: map[string]any{}}
	shapes[nameOf(t)] = found
	fields(t, found)
}

func fields(t reflect.Type, found *shape) {
	for i := 0; i < t.NumField(); i++ {
		field := t.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		// The kind and version of an object are written by the server.
		if name == "-" || t.Name() == "TypeMeta" || !field.IsExported() {
			continue
		}
		if name == "" && field.Anonymous {
			visit(field.Type)
			fields(field.Type, found)
			continue
		}
		visit(field.Type)
		note(found, name, field.Type, options)
	}
}

func note(found *shape, name string, t reflect.Type, options string) {
	empty, zero := strings.Contains(options, "omitempty"), strings.Contains(options, "omitzero")
	switch t.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !empty && !zero {
			found.Zeros[name] = nil
		}
	case reflect.Struct:
		switch {
		case zero:
		case own(t):
			written(found, name, t)
		default:
			found.Structs = append(found.Structs, name)
		}
	default:
		if empty || zero {
			found.Dropped = append(found.Dropped, name)
		} else {
			written(found, name, t)
		}
	}
}

func written(found *shape, name string, t reflect.Type) {
	text, err := json.Marshal(reflect.New(t).Elem().Interface())
	if err != nil {
		return
	}
	var value any
	if json.Unmarshal(text, &value) == nil {
		found.Zeros[name] = value
	}
}

func main() {
	for kind, t := range scheme.Scheme.AllKnownTypes() {
		if kind.Version != "__internal" {
			visit(t)
		}
	}
	visit(reflect.TypeOf(apiextensions.CustomResourceDefinition{}))
	if err := print(); err != nil {
		panic(err)
	}
}

// One definition a line, in order, so that a change of release reads well.
func print() error {
	separator := "{"
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		text, err := json.Marshal(shapes[name])
		if err != nil {
			return err
		}
		if string(text) != "{}" {
			fmt.Printf("%s\n%q:%s", separator, name, text)
			separator = ","
		}
	}
	fmt.Println("\n}")
	return nil
}
