//! The outbox against the relay's own count.

use std::collections::{BTreeMap, HashMap};

use postgres_sync::Client;

use crate::database::Error;
use crate::operator;

/// What the two say together.
#[derive(Debug, Default)]
pub struct Audit {
    /// For each state, how many rows the relay took never, once, more often.
    pub states: BTreeMap<String, [usize; 3]>,
    /// Every way in which the promise is broken.
    pub broken: Vec<String>,
}

impl Audit {
    pub fn of(client: &mut Client, mut taken: HashMap<String, usize>) -> Result<Self, Error> {
        let mut audit = Self::default();
        let mut listed = operator::unknown(client)?;
        for row in client.query("SELECT message_id, state FROM outbox ORDER BY id", &[])? {
            let (id, state): (String, String) = (row.get(0), row.get(1));
            let times = taken.remove(&id).unwrap_or(0);
            let is_kept = match state.as_str() {
                "sent" => times == 1,
                "refused" => times == 0,
                "unknown" => times <= 1,
                // The demo ends when every mail is settled.
                _ => false,
            };
            if !is_kept {
                audit.broken.push(format!("{id} is {state}, and the relay took it {times} times"));
            }
            if listed.remove(&id) != (state == "unknown") {
                audit.broken.push(format!("{id} is {state}, and the recovery query says otherwise"));
            }
            if let Some(count) = audit.states.entry(state).or_default().get_mut(times.min(2)) {
                *count += 1;
            }
        }
        audit.broken.extend(taken.keys().map(|id| format!("{id} was taken and is not in the outbox")));
        audit.broken.extend(listed.iter().map(|id| format!("{id} is listed as unknown and is not in the outbox")));
        Ok(audit)
    }
}
