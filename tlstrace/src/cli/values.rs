//! Values that are typed as text: durations and ports.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::glob::Glob;

/// `500ms`, `10s`, `2m`, `1h`; also with a fraction.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let error = || format!("`{text}` is not a duration such as 500ms, 10s, 2m or 1h");
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(error)?;
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(error()),
    };
    let number: f64 = number.parse().map_err(|_| error())?;
    match Duration::try_from_secs_f64(number * seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(error()),
    }
}

/// `ok=10s`: verdicts and a period.
pub(super) fn aggregate(text: &str) -> Result<(Glob, Duration), String> {
    let error = || format!("`{text}` is not a verdict (or pattern) and a period from 1s on, such as ok=10s");
    let (pattern, period) = text.split_once('=').ok_or_else(error)?;
    let period = duration(period)?;
    if pattern.is_empty() || period < Duration::from_secs(1) {
        return Err(error());
    }
    Ok((Glob::new(pattern), period))
}

/// `443,8000-8999`.
pub(super) fn ports(text: &str) -> Result<Vec<RangeInclusive<u16>>, String> {
    let port = |number: &str| number.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (port(first)?, port(last)?);
        (first <= last).then_some(first..=last)
    };
    let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
    ranges.ok_or_else(|| format!("`{text}` is not a list of ports such as 443,8000-8999"))
}

/// `127.0.0.1:9464`, `[::1]:9464`, and `::1:9464`, which is what comes of joining an address and a port unseen.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    let joined = || {
        let (address, port) = text.rsplit_once(':')?;
        Some(SocketAddr::new(address.parse::<IpAddr>().ok()?, port.parse().ok()?))
    };
    let address = text.parse().ok().or_else(joined);
    address
        .ok_or_else(|| format!("`{text}` is not an address and a port, such as 127.0.0.1:9464 or [::1]:9464"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_number_and_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        for bad in ["", "10", "s", "-1s", "0s", "1d", "1 fortnight", "nans", "1e400s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_have_a_port_and_need_no_brackets() {
        for (text, meant) in [
            ("10.0.0.1:9464", "10.0.0.1:9464"),
            ("[fd00::1]:9464", "[fd00::1]:9464"),
            ("fd00::1:9464", "[fd00::1]:9464"),
            (":::0", "[::]:0"),
        ] {
            assert_eq!(socket_address(text), Ok(meant.parse().unwrap()), "{text}");
        }
        for bad in ["", "9464", ":9464", "10.0.0.1", "fd00::", "10.0.0.1:65536", "localhost:9464", "[::1]"] {
            assert!(socket_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_are_numbers_and_ranges() {
        assert_eq!(ports("443,8000-8999").unwrap(), [443..=443, 8000..=8999]);
        for bad in ["", "0", "443,", "65536", "9-8", "https", "1-2-3"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }
}
