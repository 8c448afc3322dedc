"""What a row at time t knows: features of telemetry, errors, maintenance and the machine, by compiled loops."""
