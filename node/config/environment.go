package config

import (
	"encoding"
	"reflect"
	"strconv"
	"strings"

	"pelago/cluster/fault"
)

// environment puts PELAGO_* variables over the settings: PELAGO_DICOM_LISTEN is
// dicom.listen, PELAGO_SITE is site. Variables that name no setting are errors,
// but for those that tests and tools use.
func (c *Config) environment(environ []string) error {
	settings := map[string]reflect.Value{}
	collect("PELAGO", reflect.ValueOf(c).Elem(), settings)
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "PELAGO_") || foreign[name] {
			continue
		}
		setting, ok := settings[name]
		if !ok {
			return fault.New(fault.Invalid, "environment: %s names no setting", name)
		}
		if err := assign(setting, value); err != nil {
			return fault.New(fault.Invalid, "environment: %s: %w", name, err)
		}
	}
	return nil
}

// foreign are variables of ours that are no settings.
var foreign = map[string]bool{"PELAGO_SAMPLES": true, "PELAGO_CONFIG": true, "PELAGO_PASSWORD": true}

func collect(prefix string, v reflect.Value, into map[string]reflect.Value) {
	for i := range v.NumField() {
		key := v.Type().Field(i).Tag.Get("toml")
		name := prefix + "_" + strings.ToUpper(key)
		if field := v.Field(i); field.Kind() == reflect.Struct {
			collect(name, field, into)
		} else {
			into[name] = field
		}
	}
}

func assign(v reflect.Value, s string) error {
	if text, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return text.UnmarshalText([]byte(s))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return err
		}
		v.SetBool(b)
	case reflect.Int:
		n, err := strconv.Atoi(s)
		if err != nil {
			return err
		}
		v.SetInt(int64(n))
	case reflect.Slice:
		var all []string
		for part := range strings.SplitSeq(s, ",") {
			if part = strings.TrimSpace(part); part != "" {
				all = append(all, part)
			}
		}
		v.Set(reflect.ValueOf(all))
	default:
		return fault.New(fault.Unsupported, "this setting is for the file only")
	}
	return nil
}
