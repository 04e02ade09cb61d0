# SPDX-License-Identifier: GPL-3.0-or-later
"""What a hostile world does: mutated models, mutated replies, random histories of the journal, and strangers at the
sidecar's door.

`python build.py fuzz` runs the two fuzzers with as large a budget as is asked for; the tests run a small share of it.
"""
