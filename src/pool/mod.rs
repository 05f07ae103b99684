//! A pool of connections of any kind: who gets one, who waits, who opens one.
