"""Minimum-cost matching of masks to slots, inside a compiled step.

The assignment problem is solved by shortest augmenting paths: rows join the matching
one after the other, each by a Dijkstra search over columns that may move earlier rows.
All samples of a batch advance together in one loop, each at its own pace, without
Python callbacks and with static shapes, so the loop compiles for CPU, GPU and TPU.
"""

from typing import Any, NamedTuple

from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")

# Costs become whole numbers below 2^36: their sums are exact, ties stay ties, and
# every device finds the same matching. float32 itself has 24 bits.
_COST_BITS = 36
_FAR = 2**61
# Up to here no sum of costs along a path leaves 64 bits.
_LARGEST_SIDE = 4096


def match(cost: Any, is_present: Any) -> Any:
    """Gives every present row a column of its own, at the lowest total cost.

    As many rows as possible are matched; of more present rows than columns, those stay
    out whose absence costs least. What is not a number counts as 0, and never makes
    the loop endless.

    Of `P` present rows, those with a favorite column that no earlier row wants have it
    at once. Each of the others takes at most `2 P` rounds of `O(M)` work, so the time
    is `O(P^2 M)` at worst; ten rounds per row are usual with 128 rows and columns.
    Memory is `O(N M)`. There is no rounding but that of the costs.

    Args:
        cost: `[B, N, M]` float32, `N` and `M` up to 4096 and known. Values are rounded
            to 2^-36 of the largest one.
        is_present: `[B, N]` bool; rows that are not present are not read.

    Returns:
        `[B, N]` int32 columns, -1 for rows that are not matched; without gradient.
        Which of several optimal matchings it is, is the same on every device, but not
        specified.

    References:
        Jonker and Volgenant, Computing 38, 1987; Crouse, On implementing 2D
        rectangular assignment algorithms, IEEE Transactions on Aerospace and
        Electronic Systems 52, 2016.
    """
    if not all(side and side <= _LARGEST_SIDE for side in cost.shape[1:]):
        raise ValueError(
            f"costs are {cost.shape}; rows and columns must be 1..{_LARGEST_SIDE} and "
            "known when the graph is built"
        )
    return _match(tf.stop_gradient(cost), is_present)


class _State(NamedTuple):
    """Holds the matching so far and, of every sample, the search of its next row.

    Attributes:
        column_of: `[B, N]` int32, -1 without.
        row_of: `[B, M]` int32, -1 without.
        potential: `[B, M]` int64, the dual variables of columns; 0 while free.
        distance: `[B, M]` int64 from the row that joins.
        previous: `[B, M]` int32 row from which a column was reached.
        is_scanned: `[B, M]` bool, whether its distance is final.
        row: `[B]` int32, whose edges come next.
        column: `[B]` int32 that this row has; -1 for the row that joins.
        reached: `[B]` int64 distance of this column.
        flipped: `[B]` int32 column that the path's next row gets; -1 during a search.
    """

    column_of: Any
    row_of: Any
    potential: Any
    distance: Any
    previous: Any
    is_scanned: Any
    row: Any
    column: Any
    reached: Any
    flipped: Any


# Compiled, a round takes some 15 us on a CPU core; op by op, 15 times as long.
@tf.function(jit_compile=True)  # type: ignore[untyped-decorator]
def _match(cost: Any, is_present: Any) -> Any:
    num_rows, num_columns = cost.shape[1:]
    whole = _whole_numbers(cost, is_present)
    if num_rows > num_columns:
        # A row on an added column is not matched. No chain of moves outweighs one.
        padding = [[0, 0], [0, 0], [0, num_rows - num_columns]]
        unmatched = (2 * num_rows + 2) << _COST_BITS
        whole = tf.pad(whole, padding, constant_values=unmatched)
    state = tf.while_loop(
        lambda state: tf.reduce_any(is_present & (state.column_of < 0)),
        lambda state: (_advance(state, whole, is_present),),
        (_start(whole, is_present),),
    )[0]
    return tf.where(state.column_of < num_columns, state.column_of, -1)


def _whole_numbers(cost: Any, is_present: Any) -> Any:
    """Scales costs by a power of two, which loses nothing, and rounds them."""
    cost = tf.where(is_present[:, :, None] & tf.math.is_finite(cost), cost, 0.0)
    largest = tf.reduce_max(tf.abs(cost), axis=[1, 2], keepdims=True)
    # The exponent bits of a float32; the bound keeps the scale's own in range.
    exponent = tf.bitcast(tf.maximum(largest, 1e-20), tf.int32) // 2**23
    scale = tf.bitcast((_COST_BITS - 1 + 2 * 127 - exponent) * 2**23, tf.float32)
    return tf.cast(tf.round(cost * scale), tf.int64)


def _start(cost: Any, is_present: Any) -> _State:
    """Gives every row its favorite column unless an earlier row wants it."""
    rows = tf.range(cost.shape[1])
    favorite = tf.argmin(cost, axis=2, output_type=tf.int32)
    wants = favorite[:, :, None] == tf.range(cost.shape[2])
    wants &= is_present[:, :, None]
    row_of = tf.argmax(tf.cast(wants, tf.int32), axis=1, output_type=tf.int32)
    row_of = tf.where(tf.reduce_any(wants, axis=1), row_of, -1)
    has_favorite = is_present & (tf.gather(row_of, favorite, batch_dims=1) == rows)
    none = tf.fill([tf.shape(cost)[0]], -1)
    far = tf.fill(tf.shape(row_of), tf.constant(_FAR, tf.int64))
    return _State(
        column_of=tf.where(has_favorite, favorite, -1),
        row_of=row_of,
        potential=tf.zeros_like(far),
        distance=far,
        previous=tf.fill(tf.shape(row_of), -1),
        is_scanned=tf.zeros_like(row_of, tf.bool),
        row=none,
        column=none,
        reached=tf.zeros_like(none, tf.int64),
        flipped=none,
    )


def _advance(state: _State, cost: Any, is_present: Any) -> _State:
    """Scans one row, or moves one row of a path that was found."""
    is_waiting = is_present & (state.column_of < 0)
    is_active = tf.reduce_any(is_waiting, axis=1)
    is_search = is_active & (state.flipped < 0)
    joins = tf.argmax(tf.cast(is_waiting, tf.int32), axis=1, output_type=tf.int32)
    row = tf.where(state.column < 0, joins, state.row)

    # Edges of matched pairs have length 0, which gives the row's potential for free.
    edges = tf.gather(cost, row, batch_dims=1) - state.potential
    own = tf.gather(edges, tf.maximum(state.column, 0), batch_dims=1)
    length = (
        edges
        + tf.where(state.column < 0, tf.zeros_like(own), state.reached - own)[:, None]
    )
    is_closer = is_search[:, None] & ~state.is_scanned & (length < state.distance)
    distance = tf.where(is_closer, length, state.distance)
    previous = tf.where(is_closer, row[:, None], state.previous)
    open_distance = tf.where(state.is_scanned, tf.constant(_FAR, tf.int64), distance)
    # Of equally near columns a free one: with many ties the search ends sooner.
    is_occupied = tf.cast(state.row_of >= 0, tf.int64)
    nearest = tf.argmin(2 * open_distance + is_occupied, 1, output_type=tf.int32)
    reached = tf.gather(distance, nearest, batch_dims=1)
    occupant = tf.gather(state.row_of, nearest, batch_dims=1)

    is_found = is_search & (occupant < 0)
    potential = state.potential + tf.where(
        is_found[:, None] & state.is_scanned,
        distance - reached[:, None],
        tf.zeros_like(distance),
    )

    # The path is walked from its end: each row gives up its column for the next one.
    flipped = tf.where(is_found, nearest, state.flipped)
    is_flip = is_active & (flipped >= 0)
    columns = tf.range(cost.shape[2])
    rows = tf.range(cost.shape[1])
    mover = tf.gather(previous, tf.maximum(flipped, 0), batch_dims=1)
    is_mover = is_flip[:, None] & (rows == mover[:, None])
    left = tf.gather(state.column_of, tf.maximum(mover, 0), batch_dims=1)
    column_of = tf.where(is_mover, flipped[:, None], state.column_of)
    is_taken = is_flip[:, None] & (columns == flipped[:, None])
    row_of = tf.where(is_taken, mover[:, None], state.row_of)

    is_joined = is_flip & (left < 0)
    is_onward = is_search & ~is_found
    is_scanned = state.is_scanned | (is_onward[:, None] & (columns == nearest[:, None]))
    return _State(
        column_of=column_of,
        row_of=row_of,
        potential=potential,
        distance=tf.where(is_joined[:, None], tf.constant(_FAR, tf.int64), distance),
        previous=previous,
        is_scanned=is_scanned & ~is_joined[:, None],
        row=tf.where(is_onward, occupant, row),
        column=tf.where(is_joined, -1, tf.where(is_onward, nearest, state.column)),
        reached=tf.where(is_onward, reached, state.reached),
        flipped=tf.where(is_flip, left, state.flipped),
    )
