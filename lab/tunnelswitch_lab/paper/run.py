"""The whole reproduction: one lab for everything that is measured, then the report. Each part can be made by itself."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable

from tunnelswitch_lab.demo import best_workload
from tunnelswitch_lab.experiment import Progress, say
from tunnelswitch_lab.options import LabError, LabOptions
from tunnelswitch_lab.paper import calls, series
from tunnelswitch_lab.paper.options import PaperOptions
from tunnelswitch_lab.paper.pages import update
from tunnelswitch_lab.paper.report import write_report
from tunnelswitch_lab.sip_service import check_sipp
from tunnelswitch_lab.testbed import Testbed

Measure = Callable[[Testbed, PaperOptions, str, Progress], Awaitable[None]]
_MEASURED: dict[str, Measure] = {
    "fig4": calls.measure,
    "fig5": series.measure_fig5,
    "phases": series.measure_phases,
}


async def run_paper(options: PaperOptions, progress: Progress = say) -> None:
    """Measure the parts that are asked for, then make the report of all parts that there are.

    Earlier results of the other parts stay. Raises LabError when something cannot be measured.
    """
    wanted = [part for part in _MEASURED if options.wants(part)]
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        for part in wanted:
            (options.out / f"{part}.json").unlink(missing_ok=True)
            shutil.rmtree(options.out / part, ignore_errors=True)
    except OSError as error:
        raise LabError(f"--out {options.out} cannot be written: {error.strerror}") from None
    if wanted:
        if "fig4" in wanted:
            check_sipp()
        workload = await asyncio.to_thread(best_workload)
        bed = await Testbed.up(LabOptions(options.name), progress)
        try:
            for part in wanted:
                await _MEASURED[part](bed, options, workload, progress)
        finally:
            await bed.down()
    if options.wants("report"):
        progress(f"report: {await asyncio.to_thread(write_report, options)}")
    if options.docs:
        for path in await asyncio.to_thread(update, options.out, options.docs):
            progress(f"brought up to date: {path}")
