"""Optimal assignment of rows to columns."""

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError


def assign(
    cost: NDArray[np.floating],
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs rows with columns so that the sum of their costs is the least.

    Of several best pairings it gives the one that `scipy.optimize` gives.

    Args:
        cost: `[N, M]`, finite.

    Returns:
        `[min(N, M)]` rows, ascending, and the columns they are paired with.

    Raises:
        UsageError: If the costs are not a finite matrix.

    Example:
        >>> rows, columns = assign(np.array([[4.0, 1, 3], [2, 0, 5]]))
        >>> columns.tolist()
        [1, 0]

    References:
        Crouse, On implementing 2D rectangular assignment algorithms, IEEE TAES 52(4),
        2016: shortest augmenting paths, O(min(N, M)^2 * max(N, M)).
    """
    if cost.ndim != 2 or not np.isfinite(cost).all():
        raise UsageError(
            f"cost of shape {cost.shape}; expected a matrix of finite numbers"
        )
    if cost.shape[0] > cost.shape[1]:
        columns, rows = assign(cost.T)
        order = np.argsort(rows)
        return rows[order], columns[order]
    column_of_row = _shortest_augmenting_paths(cost.astype(np.float64))
    return np.arange(len(cost)), column_of_row


def _shortest_augmenting_paths(cost: NDArray[np.float64]) -> NDArray[np.intp]:
    """Gives the column of every row; there are at least as many columns as rows."""
    num_rows, num_columns = cost.shape
    row_price, column_price = np.zeros(num_rows), np.zeros(num_columns)
    column_of_row = np.full(num_rows, -1, np.intp)
    row_of_column = np.full(num_columns, -1, np.intp)
    for start in range(num_rows):
        distance = np.full(num_columns, np.inf)
        came_from = np.full(num_columns, -1, np.intp)
        # Searched from the last to the first, so that equal costs pair in order.
        unseen = np.arange(num_columns)[::-1].copy()
        row, shortest, sink = start, 0.0, -1
        while sink < 0:
            through = shortest + cost[row, unseen] - row_price[row]
            through -= column_price[unseen]
            closer = unseen[through < distance[unseen]]
            distance[closer] = through[through < distance[unseen]]
            came_from[closer] = row
            shortest = float(distance[unseen].min())
            nearest = np.flatnonzero(distance[unseen] == shortest)
            # A free column ends the search, so of equals take one that is free.
            free = nearest[row_of_column[unseen[nearest]] < 0]
            place = free[-1] if free.size else nearest[0]
            column = int(unseen[place])
            unseen[place] = unseen[-1]
            unseen = unseen[:-1]
            if row_of_column[column] < 0:
                sink = column
            else:
                row = int(row_of_column[column])
        is_done = np.ones(num_columns, np.bool_)
        is_done[unseen] = False
        passed = row_of_column[is_done]
        passed_columns = np.flatnonzero(is_done)[passed >= 0]
        row_price[start] += shortest
        row_price[passed[passed >= 0]] += shortest - distance[passed_columns]
        column_price[is_done] -= shortest - distance[is_done]
        column = sink
        while column >= 0:
            row = int(came_from[column])
            row_of_column[column] = row
            column, column_of_row[row] = int(column_of_row[row]), column
            if row == start:
                break
    return column_of_row
