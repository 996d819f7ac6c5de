package config

import (
	"encoding"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"testing"
)

// documented matches a row of a table of keys: | `key` | `default` | meaning |.
var documented = regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\| `(.*?)` \\| \\S.*\\|$")

// defaults returns every key with its default as docs/configuration.md writes it.
func defaults(t *testing.T, prefix string, v reflect.Value, into map[string]string) {
	for i := range v.NumField() {
		field, key := v.Field(i), prefix+v.Type().Field(i).Tag.Get("toml")
		switch text, ok := field.Interface().(encoding.TextMarshaler); {
		case ok:
			b, err := text.MarshalText()
			if err != nil {
				t.Fatal(err)
			}
			into[key] = string(b)
		case field.Kind() == reflect.Struct:
			defaults(t, key+".", field, into)
		case field.Kind() == reflect.String && field.Len() == 0:
			into[key] = `""`
		case field.Kind() == reflect.Slice && field.Len() == 0:
			into[key] = "[]"
		case field.Kind() == reflect.Map && field.Len() == 0:
			into[key] = "{}"
		default:
			into[key] = fmt.Sprint(field.Interface())
		}
	}
}

func TestEveryKeyIsDocumentedWithItsDefault(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	written := map[string]string{}
	for _, row := range documented.FindAllSubmatch(text, -1) {
		written[string(row[1])] = string(row[2])
	}
	known := map[string]string{}
	defaults(t, "", reflect.ValueOf(Default()), known)
	for key, value := range known {
		switch got, ok := written[key]; {
		case !ok:
			t.Errorf("docs/configuration.md has no row for %s", key)
		case got != value:
			t.Errorf("docs/configuration.md says that %s is %s by default, it is %s", key, got, value)
		}
	}
	for key := range written {
		if _, ok := known[key]; !ok {
			t.Errorf("docs/configuration.md documents %s, which is no key", key)
		}
	}
}
