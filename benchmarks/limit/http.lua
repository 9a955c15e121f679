-- Requests of wrk: GET of random keys that the native load generator has put, or PUT of new ones.
-- Arguments: "get" or "put", the number of keys or a word that makes new keys new, then the ports
-- of the nodes, over which the threads are spread.
local turn = 0

function setup(thread)
   thread:set("number", turn)
   turn = turn + 1
end

function init(arguments)
   put = arguments[1] == "put"
   word = arguments[2]
   count = 0
   math.randomseed(number + 1)
   wrk.body = put and string.rep("v", 100) or nil
   wrk.method = put and "PUT" or "GET"
   local ports = {}
   for index = 3, #arguments do ports[#ports + 1] = arguments[index] end
   wrk.thread.addr = wrk.lookup("127.0.0.1", ports[number % #ports + 1])[1]
end

function request()
   if put then
      count = count + 1
      return wrk.format(nil, "/tables/default/keys/" .. word .. "-" .. number .. "-" .. count .. "?durability=none")
   end
   local key = string.format("k%015d", math.random(0, word - 1))
   return wrk.format(nil, "/tables/default/keys/" .. key)
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '{"operations": %d, "seconds": %.6f, "p50_us": %.1f, "p99_us": %.1f, "errors": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
      errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
