-- Posts a transaction a request, each under a fresh idempotency key, to a random account of a file.
-- Requests are put together as text: wrk.format would cost more than all the rest.
local accounts = {}
for line in io.lines(os.getenv("BENCH_ACCOUNTS")) do accounts[#accounts + 1] = line end
local run = os.getenv("BENCH_RUN")
local credit = '","amount_cents":100,"currency":"EUR","type":"CREDIT"}'
local debit = '","amount_cents":50,"currency":"EUR","type":"DEBIT"}'
local head, sent = "", 0

function init(args)
  math.randomseed(tonumber(run, 16) % 2147483647)
  head = "POST /v1/transactions HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port
    .. "\r\nAuthorization: Bearer " .. os.getenv("BENCH_API_KEY")
    .. "\r\nContent-Type: application/json\r\nIdempotency-Key: "
end

-- The key is about as long as a UUID. Its start is random, so that keys meet the index without order,
-- as those of real clients do; the run and the number in it make it unique.
function request()
  sent = sent + 1
  local body = '{"account_id":"' .. accounts[math.random(#accounts)] .. (sent % 4 == 0 and debit or credit)
  return string.format("%s%08x-%s-%012x\r\nContent-Length: %d\r\n\r\n%s",
    head, math.random(0, 0x7fffffff), run, sent, #body, body)
end

-- Only counts are handed on. wrk's latencies are not: it corrects them by a model of its own, and
-- it asks in a closed loop.
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("bench requests=%d duration_us=%d status=%d broken=%d\n",
    summary.requests, summary.duration, e.status, e.connect + e.read + e.write + e.timeout))
end
