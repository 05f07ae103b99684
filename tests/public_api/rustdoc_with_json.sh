#!/bin/sh
# A rustdoc for cargo's RUSTDOC that may write JSON, which a stable rustdoc does not offer. In cargo's own environment the variable would
# have half of the dependencies built anew.
RUSTC_BOOTSTRAP=1 exec rustdoc "$@"
