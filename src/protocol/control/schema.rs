//! docs/control.schema.json: what the daemon says on its control socket, as JSON Schema, out of the types it says it with.
//!
//! Only tests know this module: a program is not to carry descriptions that nobody reads there.

use std::borrow::Cow;

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema, json_schema};
use serde_json::{Map, Value, json};

use super::*;

/// Beside the manifest.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/control.schema.json");
/// With it in the environment the test writes the file.
const WRITE: &str = "LENSCAST_WRITE_SCHEMA";

/// A text, since a later version may add causes; the known ones are examples.
impl JsonSchema for Cause {
    fn schema_name() -> Cow<'static, str> {
        "Cause".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let known: Vec<_> = Self::ALL.iter().map(|cause| cause.name()).collect();
        json_schema!({
            "description": "Why a stream ended or reconnects, or why a request was refused. The examples are all that this \
                            version knows; a later one may add more. docs/troubleshooting.md explains each.",
            "type": "string",
            "examples": known
        })
    }
}

/// What is said to each command.
fn replies(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
    vec![
        ("status", generator.subschema_for::<Granted<Status>>()),
        ("watch", generator.subschema_for::<Granted<Status>>()),
        ("start", generator.subschema_for::<Granted<Started>>()),
        ("stop", generator.subschema_for::<Granted<Done>>()),
        ("bitrate", generator.subschema_for::<Granted<Done>>()),
        ("photo", generator.subschema_for::<Granted<PhotoHeader>>()),
        ("camera_list", generator.subschema_for::<Granted<Cameras>>()),
        ("camera_who", generator.subschema_for::<Granted<Holder>>()),
        ("camera_acquire", generator.subschema_for::<Granted<Lease>>()),
        ("camera_release", generator.subschema_for::<Granted<Done>>()),
        ("doctor", generator.subschema_for::<Granted<Checkup>>()),
    ]
}

fn document() -> Value {
    // As one who reads it sees it: what may be missing, from this or another version, is not required.
    let mut generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
    let refused = generator.subschema_for::<Refused>();
    let mut definitions = Map::new();
    for (command, granted) in replies(&mut generator) {
        let reply = json!({"description": format!("The reply line to `{command}`."), "anyOf": [granted, refused]});
        definitions.insert(format!("reply_to_{command}"), reply);
    }
    let replies = definitions.keys().map(|name| json!({"$ref": format!("#/$defs/{name}")}));
    let lines: Vec<_> = replies.chain([generator.subschema_for::<Event>().to_value()]).collect();
    definitions.extend(generator.take_definitions(true));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What lenscastd says on its control socket",
        "description": format!(
            "One line of it. Who knows what was asked takes #/$defs/reply_to_COMMAND or #/$defs/Event instead. Of protocol \
             {PROTOCOL_VERSION}: a later version may add fields, events and causes, which are to be ignored; null and a \
             missing field mean the same. See docs/protocol.md. Written by `{WRITE}=1 cargo test --lib schema`."
        ),
        "anyOf": lines,
        "$defs": definitions,
    })
}

#[test]
fn the_schema_in_docs_is_that_of_the_code() {
    let text = format!("{:#}\n", document());
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(FILE, &text).unwrap();
    }
    let kept = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(
        kept == text,
        "the types and docs/control.schema.json differ; write it anew: {WRITE}=1 cargo test --lib schema"
    );
}

#[test]
fn every_command_has_its_reply() {
    let replies = replies(&mut SchemaGenerator::default());
    let told: Vec<_> = replies.iter().map(|(command, _)| *command).collect();
    assert_eq!(told.join(", "), super::request::COMMANDS);
}
