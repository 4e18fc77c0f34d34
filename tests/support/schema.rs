//! What the daemon says, held against docs/control.schema.json.
//!
//! Stricter than a client may be: what the schema does not name is an error here, so that nothing is said that is not
//! described. It knows the words of JSON Schema that this schema is written in, and refuses others.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::{Map, Value};

static SCHEMA: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../docs/control.schema.json")).expect("the schema is JSON"));

/// Panics if `value` is not what `$defs` has under this name. A name that is not there is one of a request that the daemon
/// must refuse.
pub fn check(name: &str, value: &Value) {
    let definition = SCHEMA["$defs"].get(name).unwrap_or(&SCHEMA["$defs"]["Refused"]);
    if let Err(why) = fits(definition, value, name) {
        panic!("not as docs/control.schema.json says: {why}\n{value}");
    }
}

fn fits(schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    let schema = schema.as_object().ok_or_else(|| format!("{place}: no schema"))?;
    let mut known = BTreeSet::new();
    fits_but_for_names(schema, value, place, &mut known)?;
    // Only who names properties speaks of an object's whole.
    let unknown = value.as_object().into_iter().flat_map(Map::keys).find(|name| !known.contains(name.as_str()));
    unknown.map_or(Ok(()), |name| Err(format!("{place}: {name:?} is not described")))
}

/// Collects the names of properties that are described.
fn fits_but_for_names<'a>(
    schema: &'a Map<String, Value>,
    value: &Value,
    place: &str,
    known: &mut BTreeSet<&'a str>,
) -> Result<(), String> {
    let wrong = |what: &dyn std::fmt::Display| Err(format!("{place}: {value} is not {what}"));
    for (word, says) in schema {
        match (word.as_str(), says) {
            ("description" | "format" | "examples" | "default" | "title", _) => {}
            ("$ref", Value::String(path)) => {
                let path = path.strip_prefix('#').ok_or("a reference to elsewhere")?;
                let there = SCHEMA.pointer(path).and_then(Value::as_object).ok_or_else(|| format!("no {path}"))?;
                fits_but_for_names(there, value, place, known)?;
            }
            ("type", Value::String(one)) if is(value, one) => {}
            ("type", Value::Array(some)) if some.iter().filter_map(Value::as_str).any(|one| is(value, one)) => {}
            ("const", says) if value == says => {}
            ("enum", Value::Array(some)) if some.contains(value) => {}
            ("minimum", says) if value.as_f64() >= says.as_f64() => {}
            ("maximum", says) if value.as_f64() <= says.as_f64() => {}
            // Bounds of numbers say nothing of null.
            ("minimum" | "maximum", _) if value.is_null() => {}
            ("required", Value::Array(names)) => {
                if let Some(missing) = names.iter().filter_map(Value::as_str).find(|name| value.get(name).is_none()) {
                    return Err(format!("{place}: {missing:?} is missing"));
                }
            }
            ("properties", Value::Object(properties)) => {
                for (name, schema) in properties {
                    known.insert(name);
                    if let Some(value) = value.get(name) {
                        fits(schema, value, &format!("{place}.{name}"))?;
                    }
                }
            }
            ("items", schema) => {
                for item in value.as_array().into_iter().flatten() {
                    fits(schema, item, &format!("{place}[]"))?;
                }
            }
            ("anyOf" | "oneOf", Value::Array(ways)) => {
                let mut reasons = Vec::new();
                let fitting = ways.iter().filter_map(Value::as_object).find_map(|way| {
                    let mut named = BTreeSet::new();
                    fits_but_for_names(way, value, place, &mut named).map_err(|why| reasons.push(why)).ok()?;
                    Some(named)
                });
                known.extend(fitting.ok_or_else(|| reasons.join(", nor "))?);
            }
            ("type" | "const" | "enum" | "minimum" | "maximum", says) => return wrong(&format!("{word} {says}")),
            _ => return Err(format!("{place}: the word {word:?} is not known here")),
        }
    }
    Ok(())
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        _ => false,
    }
}
