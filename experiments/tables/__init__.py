"""The tables and figures of the paper, each a function of the budget."""

from collections.abc import Callable

from experiments.plan import Budget, Table
from experiments.tables.adversarial import table5, table8
from experiments.tables.attack_speed import table2
from experiments.tables.frontier import frontier
from experiments.tables.generation import fig2, fig6, table1
from experiments.tables.inverse import figs7to12, table4
from experiments.tables.meta import table6, table7
from experiments.tables.speed import fig3, fig4, table3

TABLES: dict[str, Callable[[Budget], Table]] = {
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "table4": table4,
    "table5": table5,
    "table6": table6,
    "table7": table7,
    "table8": table8,
    "fig2": fig2,
    "fig3": fig3,
    "fig4": fig4,
    "fig6": fig6,
    "figs7to12": figs7to12,
    "frontier": frontier,
}
