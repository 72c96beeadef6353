local s = assert(require('socket').bind('127.0.0.1', tonumber(arg[1])))
while true do
  local c = s:accept()
  if c then c:receive('*l'); c:send('HTTP/1.0 200 OK\r\n\r\nlua\n'); c:close() end
end
