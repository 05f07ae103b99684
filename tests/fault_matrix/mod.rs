//! The fault matrix as data: what the server does, what the caller must be told, what becomes of connection and host.
//!
//! | code | meaning |
//! |---|---|
//! | `PF` `RT` `RB` `HU` `UD` `CC` | the kinds of failure |
//! | `S1` … `S5` | session being opened, ready, envelope started, content started, last byte offered |
//! | `K` | the connection is kept, and the next message goes over it without RSET |
//! | `KR` | it is kept and owes RSET, which leaves together with the next MAIL |
//! | `D` | it is given up; `DQ`: and the server, which still listens, hears QUIT |
//! | `X` | it is cut: RST, and not another byte; `XU`: the same where the server's side is gone, so that RST cannot be seen |

pub(crate) mod chunking;
pub(crate) mod crowd;
pub(crate) mod data;
pub(crate) mod end_of_data;
pub(crate) mod envelope;
pub(crate) mod harness;
pub(crate) mod idle;
pub(crate) mod opening;
pub(crate) mod rekeyed;
