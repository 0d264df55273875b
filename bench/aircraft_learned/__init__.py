"""Trackers that learned on real tracks of aircraft, beside filters that were tuned on the same.

    python -m bench.aircraft_learned                       # the table
    python -m bench.aircraft_learned --networks FOLDER     # with others that `train` left there
    python -m bench.aircraft_learned tune                  # the filters, some minutes
    python -m bench.aircraft_learned train --seed 0        # the network of the flow, some minutes
    python -m bench.aircraft_learned keep aircraft_kalmannet_0.npz      # as the flow's model
    python -m bench.aircraft_learned export tracks.npz     # all of the tracks that --file needs

The tracks are those of switzerland.json.gz of the `traffic` collection, under shared/data beside
the clone or the file named by --file: 842 aircraft, a report each 10 s. They are parted by a hash
of their addresses (blocks/source/tracks.py): networks are trained and filters tuned on 60 % of the
aircraft, what is best is chosen on 20 %, the table is of the other 20 %.

There is no truth in them but what aircraft told. So a position is compared with what was foretold
of it from all that came before; only positions are read, by all alike. Lengths are in m. The first
SKIP reports of a track are left out, in which trackers find its velocity.
"""
