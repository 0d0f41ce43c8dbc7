-- Each series' samples in the order of time.
(
    SELECT fp, arraySort(all_times) AS times, arraySort((v, time) -> time, all_values, all_times) AS values
    FROM
    (
        SELECT fp, groupArray(time) AS all_times, groupArray(v) AS all_values
        FROM @SAMPLES@ AS latest
        GROUP BY fp
    )
)
