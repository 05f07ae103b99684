#!/bin/sh
# For cargo's RUSTDOC: a stable rustdoc that does what else only a nightly one does, writing JSON and showing features as docs.rs does. In
# cargo's own environment the variable would have half of the dependencies built anew.
RUSTC_BOOTSTRAP=1 exec rustdoc "$@"
