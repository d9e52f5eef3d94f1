-- Runs in rpm's own Lua at the end of a spec: writes the sources and patches that rpm knows by then, one a line, as kind,
-- number, path and value; the last two in hexadecimal.
local lines = {}

local function hex(text)
    return (string.gsub(text, ".", function(byte) return string.format("%02x", string.byte(byte)) end))
end

-- Until 4.15 rpm does not tell the numbers to Lua.
local function numbers_of(kind, count)
    local numbers = {}
    for number = 0, 99999 do
        if #numbers == count then
            break
        end
        if rpm.expand("%{?" .. kind .. "URL" .. number .. ":1}") == "1" then
            numbers[#numbers + 1] = number
        end
    end
    return numbers
end

local function tell(kind, files, numbers)
    for _, number in ipairs(numbers or numbers_of(kind, #(files or {}))) do
        local path = rpm.expand("%{" .. kind .. number .. "}")
        local value = rpm.expand("%{" .. kind .. "URL" .. number .. "}")
        lines[#lines + 1] = kind .. " " .. number .. " " .. hex(path) .. " " .. hex(value) .. "\n"
    end
end

tell("SOURCE", sources, source_nums)
tell("PATCH", patches, patch_nums)
local answer = io.open(rpm.expand("%{_farm_answer}"), "w")
answer:write(table.concat(lines))
answer:close()
