//! The settings of a sender from a file.

use std::fmt;

use serde_core::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, Unexpected, Visitor};
use serde_core::ser::{Serialize, Serializer};

use super::host;
use super::node::{Key, Node, twice, unknown};
use super::setting::{Setting, read};
use crate::options::{Host, OptionsError, PoolOptions};

/// A key for each field, by its name. The pattern has no `..`, so a field cannot be left out.
macro_rules! settings {
    ($($name:ident),* $(,)?) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        fn set(options: &mut PoolOptions, key: &str, node: &Node) -> Result<(), OptionsError> {
            match key {
                $(stringify!($name) => options.$name = read(key, node)?,)*
                _ => return Err(unknown(key, NAMES)),
            }
            Ok(())
        }

        fn write(options: &PoolOptions) -> Node {
            let PoolOptions { $($name),* } = options;
            Node::Table(vec![$((stringify!($name).to_owned(), $name.write())),*])
        }
    };
}

settings! {
    max_size,
    interactive_reserve,
    min_idle,
    refill_delay,
    acquire_timeout,
    connect_timeout,
    auth_timeout,
    send_timeout,
    final_reply_timeout,
    idle_timeout,
    max_lifetime,
    max_messages_per_connection,
    learn_limits,
    keepalive_interval,
    keepalive_command,
    reconnect_cooldown,
    max_reconnect_cooldown,
    backoff,
    jitter,
    max_retries,
    retry_base_delay,
    ambiguity_boundary,
    // Behind the others: TOML has its tables last.
    hosts,
}

impl Setting for Vec<Host> {
    fn rule() -> String {
        "must be a list of hosts".to_owned()
    }

    /// Always something: what is wrong in it waits for `build()`, see [`host::read`].
    fn read(node: &Node) -> Option<Self> {
        Some(match node {
            Node::List(entries) => entries.iter().map(host::read).collect(),
            lone => vec![host::read(lone)],
        })
    }

    fn write(&self) -> Node {
        Node::List(self.iter().map(host::write).collect())
    }
}

/// Read by key, every key optional; the default is [`PoolOptions::default`]. Needs a format that tells the types of its values, as TOML,
/// JSON and YAML do.
///
/// Fails with the text of an [`OptionsError`] on an unknown key, a key given twice, or a value of the wrong type. What is wrong inside
/// `hosts` is left to `build()`.
impl<'de> Deserialize<'de> for PoolOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Any, because a reader that was asked for a map shows what it found instead.
        deserializer.deserialize_any(PoolVisitor)
    }
}

struct PoolVisitor;

impl<'de> Visitor<'de> for PoolVisitor {
    type Value = PoolOptions;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table with the settings of a pool")
    }

    /// An empty YAML file.
    fn visit_unit<E>(self) -> Result<PoolOptions, E> {
        Ok(PoolOptions::default())
    }

    fn visit_none<E>(self) -> Result<PoolOptions, E> {
        Ok(PoolOptions::default())
    }

    /// It may be a URL with a password.
    fn visit_str<E: Error>(self, _: &str) -> Result<PoolOptions, E> {
        Err(E::invalid_type(Unexpected::Other("text"), &self))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<PoolOptions, D::Error> {
        PoolOptions::deserialize(deserializer)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<PoolOptions, A::Error> {
        let mut options = PoolOptions::default();
        let mut seen = Vec::new();
        let mut misplaced = None;
        while let Some(Key(key)) = entries.next_key()? {
            if seen.contains(&key) {
                return Err(A::Error::custom(twice(&key)));
            }
            if host::has_key(&key) {
                // Perhaps the password: not now, when the reader would show the line.
                entries.next_value::<Node>()?;
                misplaced.get_or_insert_with(|| host::misplaced(&key));
            } else {
                entries.next_value_seed(Entry { options: &mut options, key: &key })?;
            }
            seen.push(key);
        }
        misplaced.map_or(Ok(options), |error| Err(A::Error::custom(error)))
    }
}

/// The value of one key. It fails from within, so that the reader knows the place.
struct Entry<'o> {
    options: &'o mut PoolOptions,
    key: &'o str,
}

impl<'de> DeserializeSeed<'de> for Entry<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let node = Node::deserialize(deserializer)?;
        set(self.options, self.key, &node).map_err(D::Error::custom)
    }
}

/// Written with every key, and [`Host`]s without their passwords.
impl Serialize for PoolOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write(self).serialize(serializer)
    }
}
