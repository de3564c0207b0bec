-- What the airline's application knows: one row a flight from June to September, as it asks for a prediction at the
-- scheduled departure, and what it learns when the flight has landed. Cancelled flights never get a label.
SELECT
    concat_ws('-', f.month, f.day, f.carrier, f.flight, f.origin, f.sched_dep_time) AS flight_id,
    f.month,
    f.tailnum,
    f.time_hour + to_minutes(f.minute) AS sched_dep,
    f.carrier, f.origin, f.dest, f.distance,
    w.temp, w.wind_speed, w.precip, w.visib, w.pressure,
    f.arr_delay > 15 AS late,
    f.time_hour + to_minutes(f.minute + f.dep_delay::BIGINT + f.air_time::BIGINT + 25) AS arrived_at
FROM flights AS f
LEFT JOIN weather AS w ON w.origin = f.origin AND w.time_hour = f.time_hour
WHERE f.month BETWEEN 6 AND 9 AND f.time_hour < TIMESTAMPTZ '2013-10-01 00:00:00+00'
ORDER BY sched_dep, flight_id
