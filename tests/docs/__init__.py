# SPDX-License-Identifier: GPL-3.0-or-later
"""What the pages say, held against what the program does."""
