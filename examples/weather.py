"""Four years of Seattle's weather: read, check, summarise month by month, report.

    headrace run examples/weather.py:pipeline
    headrace run examples/weather.py:pipeline -p 'years=[2014, 2015]' -p output=/tmp/weather

The days come as one CSV file that another team uploads. The upload takes its time, so the first look for
the file fails and is tried again; that is what retries are for. Each year is a flow of its own, its months
are summarised in parallel, and a report is written that says which year was wettest.
"""

from __future__ import annotations

import csv
import datetime
import json
import pathlib
import shutil
import time
from itertools import groupby
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from headrace import flow, get_run_logger, task, unmapped
from headrace.runtime import flow_run

DATA = pathlib.Path(__file__).parent / "data" / "seattle-weather.csv"
UPLOAD_SECONDS = 0.4

Date = Annotated[datetime.date, BeforeValidator(lambda text: text.replace("/", "-"))]
Celsius = Annotated[float, Field(ge=-60, le=60)]


class NotUploadedYet(Exception):
    """The upload has not finished: there is no file of that name yet."""


class Day(BaseModel):
    """One day as the weather station reports it."""

    date: Date
    precipitation: float = Field(ge=0, description="mm")
    temp_max: Celsius
    temp_min: Celsius
    wind: float = Field(ge=0, description="m/s")
    weather: Literal["drizzle", "fog", "rain", "snow", "sun"]

    @model_validator(mode="after")
    def _night_is_not_warmer_than_day(self) -> Day:
        if self.temp_min > self.temp_max:
            raise ValueError(f"lowest temperature {self.temp_min} is above the highest, {self.temp_max}")
        return self


class Summary(BaseModel):
    """What a month or a year was like."""

    period: str
    days: int
    rain_mm: float
    wet_days: int
    hottest: float
    coldest: float
    mean_high: float


@task(tags=["upload"])
def upload(source: pathlib.Path, landing: pathlib.Path) -> int:
    """Stand in for the other team: write a part file slowly, then rename it. Returns its size in bytes."""
    part = landing.with_suffix(".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, part)
    time.sleep(UPLOAD_SECONDS)
    part.rename(landing)
    return landing.stat().st_size


@task(retries=5, retry_delay_seconds=[0.5, 1, 2, 4, 8])
def read_rows(landing: pathlib.Path) -> list[dict[str, str]]:
    """The lines of the uploaded file."""
    if not landing.exists():
        raise NotUploadedYet(f"{landing.name} is still being uploaded")
    with landing.open(newline="") as file:
        return list(csv.DictReader(file))


@task
def check_rows(rows: list[dict[str, str]], tolerated: float) -> list[Day]:
    """The rows as days; a bad row is logged and left out, too many bad rows fail the task."""
    log = get_run_logger()
    days: list[Day] = []
    for number, row in enumerate(rows, start=2):
        try:
            days.append(Day.model_validate(row))
        except ValidationError as error:
            first = error.errors()[0]
            log.warning("line %d left out: %s %s", number, ".".join(map(str, first["loc"])), first["msg"])
    bad = len(rows) - len(days)
    log.info("%d of %d rows are good", len(days), len(rows))
    if bad > tolerated * len(rows):
        raise ValueError(f"{bad} of {len(rows)} rows are bad, more than {tolerated:.0%}")
    return days


@task
def split_by_year(days: list[Day], folder: pathlib.Path) -> dict[int, pathlib.Path]:
    """Write one file of good days for each year; returns them by year."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[int, pathlib.Path] = {}
    for year, its_days in groupby(days, key=lambda day: day.date.year):
        files[year] = folder / f"{year}.jsonl"
        files[year].write_text("".join(f"{day.model_dump_json()}\n" for day in its_days))
    return files


@task
def load_days(file: pathlib.Path) -> list[Day]:
    """The days of one file that `split_by_year` wrote."""
    return [Day.model_validate_json(line) for line in file.read_text().splitlines()]


@task(task_run_name="summarise {month}")
def summarise_month(month: str, days: list[Day], wet_day_mm: float) -> Summary:
    """What the days of one month were like; a day counts as wet from `wet_day_mm` on."""
    return Summary(
        period=month,
        days=len(days),
        rain_mm=round(sum(day.precipitation for day in days), 1),
        wet_days=sum(day.precipitation >= wet_day_mm for day in days),
        hottest=max(day.temp_max for day in days),
        coldest=min(day.temp_min for day in days),
        mean_high=round(sum(day.temp_max for day in days) / len(days), 1),
    )


@task
def join_months(year: int, months: list[Summary]) -> Summary:
    """A year from its months."""
    days = sum(month.days for month in months)
    return Summary(
        period=str(year),
        days=days,
        rain_mm=round(sum(month.rain_mm for month in months), 1),
        wet_days=sum(month.wet_days for month in months),
        hottest=max(month.hottest for month in months),
        coldest=min(month.coldest for month in months),
        mean_high=round(sum(month.mean_high * month.days for month in months) / days, 1),
    )


@flow(flow_run_name="year {year}")
def summarise_year(year: int, file: pathlib.Path, wet_day_mm: float) -> Summary:
    """Every month of a year, in parallel."""
    days = load_days(file)
    months = {month: list(its_days) for month, its_days in groupby(days, key=lambda day: f"{day.date:%Y-%m}")}
    summaries = summarise_month.map(list(months), list(months.values()), unmapped(wet_day_mm))
    return join_months(year, summaries.result())


@task
def write_report(years: list[Summary], output: pathlib.Path) -> pathlib.Path:
    """Write `weather.json` and `weather.md` to the folder `output`; returns the latter's path."""
    output.mkdir(parents=True, exist_ok=True)
    (output / "weather.json").write_text(json.dumps([year.model_dump() for year in years], indent=2) + "\n")
    report = output / "weather.md"
    report.write_text(f"# Seattle, year by year\n\n{table(years)}\n")
    return report


@flow(log_prints=True)
def pipeline(
    source: pathlib.Path = DATA,
    output: pathlib.Path = pathlib.Path("out"),
    years: list[int] | None = None,
    wet_day_mm: Annotated[float, Field(gt=0)] = 1.0,
    tolerated_bad_rows: Annotated[float, Field(ge=0, le=1)] = 0.01,
) -> list[Summary]:
    """Summarise the weather of each year, or of the `years` given, and write a report to `output`."""
    log = get_run_logger()
    landing = output / "landing" / f"{flow_run.id}.csv"
    uploading = upload.submit(source, landing)
    days = check_rows(read_rows(landing), tolerated_bad_rows)
    log.info("the upload had %d bytes", uploading.result())

    files = split_by_year(days, output / "days")
    wanted = [year for year in files if years is None or year in years]
    if not wanted:
        raise ValueError(f"the upload has no days of {years}, only of {list(files)}")
    summaries = [summarise_year(year, files[year], wet_day_mm) for year in wanted]
    report = write_report(summaries, output)
    landing.unlink()

    wettest = max(summaries, key=lambda summary: summary.rain_mm)
    log.info("the wettest year was %s with %.0f mm", wettest.period, wettest.rain_mm)
    print(f"Seattle, year by year:\n\n{table(summaries)}\n\nThe report is in {report}")
    return summaries


def table(summaries: list[Summary]) -> str:
    """A Markdown table, which is readable in a terminal too."""
    columns = ["year", "days", "rain, mm", "wet days", "hottest, °C", "coldest, °C", "mean high, °C"]
    rows = [[str(value) for value in summary.model_dump().values()] for summary in summaries]
    lines = [[cell.rjust(len(name)) for cell, name in zip(row, columns, strict=True)] for row in rows]
    rule = [f"{'-' * (len(name) - 1)}:" for name in columns]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [columns, rule, *lines])


if __name__ == "__main__":
    pipeline()
