//! Who goes first when callers wait.

/// Which of the two lanes to a connection a send takes; see [`SendOptions::lane`](crate::SendOptions::lane).
///
/// Within a lane callers are served in order of arrival. Between the lanes, whenever both wait for what either could use:
///
/// - Interactive goes before bulk.
/// - But not for ever: a turn that bulk is passed over for makes it older, and after eight of them in a row the next is bulk's. So
///   of nine turns at least one is bulk's, however many interactive callers come.
/// - Bulk never has more than its share of the connections, so that some come free soon, or are free, when somebody comes who is in a
///   hurry: see [`PoolOptions::interactive_reserve`](crate::PoolOptions::interactive_reserve). While it has its share it is passed over
///   without growing older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Lane {
    /// Somebody waits for this very message: a password to be reset, an order to be confirmed.
    #[default]
    Interactive,
    /// Mail that may take its time: newsletters, reports, whatever a queue holds.
    Bulk,
}
