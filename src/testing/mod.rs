//! An embedded, scriptable SMTP server for tests.
