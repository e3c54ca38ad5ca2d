package cluster

// TimeFormat is how a time is written for people, clients and in keys: ISO 8601 as Python prints it, with +00:00 for UTC.
const TimeFormat = "2006-01-02T15:04:05-07:00"
