# SPDX-License-Identifier: GPL-3.0-or-later
"""HOW a request is carried through, from checked images to a kept model.

job.py       the states of a job and which may follow which
journal.py   every job as a row on disk
request.py   what somebody asks for, and everything that is checked before it is a job
runner.py    the thread in which jobs live      carrier.py   what is done with one of them
images.py    input pictures      fetch.py   those on the web      glb.py   delivered models
library.py   where both are kept
rows.py      what a batch is made of: a folder, a pattern, a manifest
batch.py     many jobs in one go     book.py     their results, by row     sheet.py     the pictures of them
"""
